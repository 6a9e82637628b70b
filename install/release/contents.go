package main

import (
	"bytes"
	"debug/buildinfo"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/CycloneDX/cyclonedx-go"
)

// contents writes what each program of each architecture is made of: the
// modules that the program itself says it was linked from, in CycloneDX.
func (r release) contents() error {
	for _, arch := range r.arches {
		b, err := r.list(arch)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(r.out, fmt.Sprintf("poplin-%s-linux-%s.cdx.json", r.version, arch)), b, 0o644); err != nil {
			return err
		}
	}
	return nil
}

func (r release) list(arch string) ([]byte, error) {
	libraries := map[string]cyclonedx.Component{}
	var programs []cyclonedx.Component
	var links []cyclonedx.Dependency
	all := []string{}
	for _, name := range programNames {
		path := filepath.Join(r.dir(arch), name)
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w; build it first (make build GOARCH=%s)", path, err, arch)
		}
		sum, err := digest(path)
		if err != nil {
			return nil, err
		}
		ref := name + "@" + r.version
		all = append(all, ref)
		programs = append(programs, cyclonedx.Component{
			BOMRef: ref, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: r.version,
			Hashes:   &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}},
			Licenses: &cyclonedx.Licenses{{License: &cyclonedx.License{ID: "Apache-2.0"}}},
		})
		uses := []string{}
		for _, m := range modules(info) {
			url := "pkg:golang/" + m.Path + "@" + m.Version
			libraries[url] = cyclonedx.Component{BOMRef: url, Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version, PackageURL: url}
			uses = append(uses, url)
		}
		links = append(links, cyclonedx.Dependency{Ref: ref, Dependencies: &uses})
	}
	components := programs
	var urls []string
	for url := range libraries {
		urls = append(urls, url)
	}
	slices.Sort(urls)
	for _, url := range urls {
		components = append(components, libraries[url])
	}
	root := "poplin@" + r.version + "-linux-" + arch
	links = append([]cyclonedx.Dependency{{Ref: root, Dependencies: &all}}, links...)
	bom := cyclonedx.NewBOM()
	// Neither a time nor a serial number: the same programs, the same list.
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: "poplin", Version: r.version,
	}}
	bom.Components, bom.Dependencies = &components, &links
	var b bytes.Buffer
	err := cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return b.Bytes(), err
}

// modules are those linked into a program, sorted, and Go's own library.
func modules(info *debug.BuildInfo) []debug.Module {
	list := []debug.Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		list = append(list, *m)
	}
	slices.SortFunc(list, func(a, b debug.Module) int { return strings.Compare(a.Path, b.Path) })
	return list
}
