package main

import (
	"fmt"
	"os"
	"path/filepath"

	"poplin.dev/poplin/install/contents"
)

// contents writes what the programs of each architecture are made of.
func (r release) contents() error {
	for _, arch := range r.arches {
		list, err := contents.BOM("poplin", r.version, arch, r.paths(arch)...)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.out, fmt.Sprintf("poplin-%s-linux-%s.cdx.json", r.version, arch)), list, 0o644); err != nil {
			return err
		}
	}
	return nil
}
