package contents

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/CycloneDX/cyclonedx-go"
)

// BOM is the list of what programs are made of, in CycloneDX (JSON): each
// program with its digest, each module with its licences, and which uses which.
// The whole is called name, at version, for an architecture. It has neither a
// time nor a serial number: the same programs, the same list.
func BOM(name, version, arch string, programs ...string) ([]byte, error) {
	root := name + "@" + version + "-linux-" + arch
	all := []string{}
	var components []cyclonedx.Component
	var links []cyclonedx.Dependency
	for _, path := range programs {
		linked, err := Linked(path)
		if err != nil {
			return nil, err
		}
		sum, err := Digest(path)
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w", path, err)
		}
		ref := filepath.Base(path) + "@" + version
		all = append(all, ref)
		components = append(components, cyclonedx.Component{
			BOMRef: ref, Type: cyclonedx.ComponentTypeApplication, Name: filepath.Base(path), Version: version,
			Hashes:   &[]cyclonedx.Hash{{Algorithm: cyclonedx.HashAlgoSHA256, Value: sum}},
			Licenses: under("Apache-2.0"),
		})
		uses := []string{}
		for _, m := range linked {
			uses = append(uses, m.URL())
		}
		links = append(links, cyclonedx.Dependency{Ref: ref, Dependencies: &uses})
	}
	linked, err := Linked(programs...)
	if err != nil {
		return nil, err
	}
	for _, m := range linked {
		ids, err := m.Licences()
		if err != nil {
			return nil, err
		}
		components = append(components, cyclonedx.Component{
			BOMRef: m.URL(), Type: cyclonedx.ComponentTypeLibrary, Name: m.Path, Version: m.Version,
			PackageURL: m.URL(), Licenses: under(ids...),
		})
	}
	links = append([]cyclonedx.Dependency{{Ref: root, Dependencies: &all}}, links...)
	bom := cyclonedx.NewBOM()
	bom.Metadata = &cyclonedx.Metadata{Component: &cyclonedx.Component{
		BOMRef: root, Type: cyclonedx.ComponentTypeApplication, Name: name, Version: version, Licenses: under("Apache-2.0"),
	}}
	bom.Components, bom.Dependencies = &components, &links
	var b bytes.Buffer
	err = cyclonedx.NewBOMEncoder(&b, cyclonedx.BOMFileFormatJSON).SetPretty(true).Encode(bom)
	return b.Bytes(), err
}

func under(ids ...string) *cyclonedx.Licenses {
	var list cyclonedx.Licenses
	for _, id := range ids {
		list = append(list, cyclonedx.LicenseChoice{License: &cyclonedx.License{ID: id}})
	}
	return &list
}

// Digest is a file's SHA-256 in hexadecimal.
func Digest(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
