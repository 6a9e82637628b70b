package contents

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/CycloneDX/cyclonedx-go"
)

var update = flag.Bool("update", false, "write docs/dependencies.md")

func TestIdentify(t *testing.T) {
	const (
		bsd2 = "Redistributions of source code must retain the notice.\n  Redistributions in binary\nform must reproduce it."
		mit  = "Permission is hereby granted, free of charge, to any person obtaining a copy of it\n* The above copyright notice and this permission notice shall be included in all copies"
	)
	for text, want := range map[string]string{
		"Apache License\n   Version 2.0, January 2004": "Apache-2.0",
		bsd2: "BSD-2-Clause",
		bsd2 + " Names may not be used to endorse or promote products derived from": "BSD-3-Clause",
		mit + "\n\nsome files: Apache License, Version 2.0":                         "Apache-2.0 MIT",
		"Mozilla Public License Version 2.0; a GNU General Public License":          "MPL-2.0",
		"GNU General Public License":                                                "",
		"“Commons Clause” License Condition v1.0\n\nApache License, Version 2.0.":   "",
		"All rights reserved.": "",
	} {
		ids := identify(text)
		slices.Sort(ids)
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestModuleWithoutLicence(t *testing.T) {
	m := Module{Path: "example.org/x", Version: "v1.0.0", dir: t.TempDir()}
	wants := func(want string) {
		t.Helper()
		if _, err := m.Licences(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	wants("holds no LICENSE")
	if err := os.WriteFile(m.dir+"/LICENSE", []byte("Ask me before you use it."), 0o600); err != nil {
		t.Fatal(err)
	}
	wants("may we use it?")
}

// list asks Go which modules a program is made of.
func list(t *testing.T, program, arch string) []string {
	t.Helper()
	cmd := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{if not .Main}}{{.Path}}@{{.Version}}{{end}}{{end}}", "./cmd/"+program)
	cmd.Dir = "../.."
	cmd.Env = append(os.Environ(), "GOARCH="+arch, "GOOS=linux", "CGO_ENABLED=0", "GOPROXY=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	modules := strings.Fields(string(out))
	slices.Sort(modules)
	return slices.Compact(modules)
}

// TestDependencies: the page names every module of every program, on both
// architectures, and each is under a licence that may be linked in.
func TestDependencies(t *testing.T) {
	users := map[string]map[string]bool{} // module@version -> programs
	for _, program := range []string{"poplin", "poplind", "poplin-ingress", "poplinctl"} {
		for _, arch := range []string{"amd64", "arm64"} {
			for _, m := range list(t, program, arch) {
				if users[m] == nil {
					users[m] = map[string]bool{}
				}
				users[m][program] = true
			}
		}
	}
	var b strings.Builder
	b.WriteString(`# Dependencies and their licences

The modules that are linked into Poplin's programs, on amd64 and arm64, beside Go's
own library (BSD-3-Clause). Poplin is under the Apache License 2.0. The texts are in
the images, under ` + "`/licenses`" + `, and in the archives of a release; so is the list in
CycloneDX of what each program is made of.

` + "`go test ./install/contents -update`" + ` writes this page. It asks nothing of the
network, and fails where a module has no licence or one that is not Apache, MIT, BSD,
ISC or MPL.

| module | version | licence | linked into |
| --- | --- | --- | --- |
`)
	for _, name := range slices.Sorted(maps.Keys(users)) {
		path, version, _ := strings.Cut(name, "@")
		m := Module{Path: path, Version: version, dir: filepath.Join(moduleCache(), escape(path)+"@"+escape(version))}
		ids, err := m.Licences()
		if err != nil {
			t.Error(err)
		}
		fmt.Fprintf(&b, "| %s | %s | %s | %s |\n", path, version, strings.Join(ids, " and "), strings.Join(slices.Sorted(maps.Keys(users[name])), ", "))
	}
	const page = "../../docs/dependencies.md"
	if *update {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Errorf("%s is not what is linked in: go test ./install/contents -update, and look at the difference", page)
	}
}

// TestBOM: of a program it names every module that Go says it is made of, with
// its licence, and the program by its digest. Twice the same.
func TestBOM(t *testing.T) {
	program := filepath.Join(t.TempDir(), "poplin")
	cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", program, "./cmd/poplin")
	cmd.Dir, cmd.Env = "../..", append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, err := BOM("thing", "v1.2.3", runtime.GOARCH, program)
	if err != nil {
		t.Fatal(err)
	}
	again, err := BOM("thing", "v1.2.3", runtime.GOARCH, program)
	if err != nil || !bytes.Equal(text, again) {
		t.Errorf("the same program has another list: %v", err)
	}
	var bom cyclonedx.BOM
	if err := json.Unmarshal(text, &bom); err != nil {
		t.Fatal(err)
	}
	sum, err := Digest(program)
	if err != nil {
		t.Fatal(err)
	}
	var have []string
	for _, c := range *bom.Components {
		switch {
		case c.Licenses == nil || len(*c.Licenses) == 0:
			t.Errorf("%s has no licence", c.BOMRef)
		case c.Type == cyclonedx.ComponentTypeApplication:
			if c.Name != "poplin" || (*c.Hashes)[0].Value != sum {
				t.Errorf("%s %s: want poplin with digest %s", c.Name, (*c.Hashes)[0].Value, sum)
			}
		case c.Name == "stdlib":
			if want := strings.TrimPrefix(runtime.Version(), "go"); c.Version != want {
				t.Errorf("Go is %s, want %s", c.Version, want)
			}
		default:
			have = append(have, c.Name+"@"+c.Version)
		}
	}
	slices.Sort(have)
	if want := list(t, "poplin", runtime.GOARCH); !slices.Equal(have, want) {
		t.Errorf("modules %v, want %v", have, want)
	}
}
