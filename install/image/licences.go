package main

import (
	"debug/buildinfo"
	"fmt"
	"runtime/debug"

	"poplin.dev/poplin/install/contents"
	"poplin.dev/poplin/install/image/oci"
)

// checkProgram refuses what would not run: the scratch image has no loader
// and no libraries.
func checkProgram(path, arch string) error {
	info, err := buildinfo.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read program %s: %w; build it first (make build GOARCH=%s)", path, err, arch)
	}
	if got := setting(info, "GOARCH"); got != arch {
		return fmt.Errorf("read program %s: it is for %s, want %s (make build GOARCH=%s)", path, got, arch, arch)
	}
	if setting(info, "CGO_ENABLED") != "0" {
		return fmt.Errorf("read program %s: it is not static; build it with CGO_ENABLED=0 (make build)", path)
	}
	return nil
}

func setting(info *debug.BuildInfo, key string) string {
	for _, s := range info.Settings {
		if s.Key == key {
			return s.Value
		}
	}
	return ""
}

// listOf is where the image's list of contents is. Scanners of images find it
// by how its name ends.
func listOf(image string) string { return "/usr/share/sbom/" + image + ".cdx.json" }

// licences are the texts of what is linked into one of the programs.
func licences(programs []string) ([]oci.File, error) {
	texts, err := contents.Texts(programs...)
	if err != nil {
		return nil, err
	}
	var files []oci.File
	for _, t := range texts {
		files = append(files, oci.File{Path: "/licenses/" + t.Of + "/" + t.Name, Mode: 0o644, Source: t.File})
	}
	return files, nil
}
