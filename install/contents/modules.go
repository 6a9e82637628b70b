// Package contents says what programs are made of. In: programs, which hold the
// list of modules that they were linked from, and the sources of these in the
// module cache. Out: the modules, their licences and the texts of these, and a
// list of it all in CycloneDX (a software bill of materials). Nothing is asked of
// the network. It refuses programs that were not built by Go, modules without a
// licence text, and texts of licences that it does not know.
package contents

import (
	"debug/buildinfo"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"unicode"
)

// Project is the module that all programs are of.
const Project = "poplin.dev/poplin"

// Module is one that is linked in.
type Module struct {
	Path    string // module path; "stdlib" is Go's own library
	Version string // as go.mod has it; of Go without the letters in front: 1.26.0
	dir     string // its source
}

// URL is the module as a package URL (purl-spec, type golang).
func (m Module) URL() string { return "pkg:golang/" + m.Path + "@" + m.Version }

// Linked are the modules of which one of the programs is made, Go's library
// among them and Poplin not, by path and version.
func Linked(programs ...string) ([]Module, error) {
	found := map[string]Module{}
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w; build it first (make build)", program, err)
		}
		for _, m := range modules(info) {
			found[m.URL()] = m
		}
	}
	list := make([]Module, 0, len(found))
	for _, m := range found {
		list = append(list, m)
	}
	slices.SortFunc(list, func(a, b Module) int { return strings.Compare(a.URL(), b.URL()) })
	return list, nil
}

func modules(info *debug.BuildInfo) []Module {
	list := []Module{{Path: "stdlib", Version: strings.TrimPrefix(info.GoVersion, "go")}}
	for _, m := range info.Deps {
		if m.Replace != nil {
			m = m.Replace
		}
		list = append(list, Module{Path: m.Path, Version: m.Version, dir: filepath.Join(moduleCache(), escape(m.Path)+"@"+escape(m.Version))})
	}
	return list
}

// source is the directory of the module's source.
func (m Module) source() (string, error) {
	if m.Path == "stdlib" {
		return goRoot()
	}
	return m.dir, nil
}

func moduleCache() string {
	if dir := os.Getenv("GOMODCACHE"); dir != "" {
		return dir
	}
	if list := filepath.SplitList(os.Getenv("GOPATH")); len(list) > 0 {
		return filepath.Join(list[0], "pkg", "mod")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		home = "/root"
	}
	return filepath.Join(home, "go", "pkg", "mod")
}

// escape spells a module path or version as the module cache does: capital
// letters as an exclamation mark and the small letter (Go modules reference,
// "Module cache").
func escape(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsUpper(r) {
			b.WriteByte('!')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// goRoot finds the Go installation by the go program in PATH, which `go run`
// puts first.
func goRoot() (string, error) {
	if dir := os.Getenv("GOROOT"); dir != "" {
		return dir, nil
	}
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		program, err := filepath.EvalSymlinks(filepath.Join(dir, "go"))
		if err == nil {
			return filepath.Dir(filepath.Dir(program)), nil
		}
	}
	return "", errors.New("find Go's own licence: no go in PATH; put it there or set GOROOT")
}

// projectRoot walks up from the working directory to Poplin's go.mod.
func projectRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find Poplin's source: %w", err)
	}
	for ; ; dir = filepath.Dir(dir) {
		b, err := os.ReadFile(filepath.Join(dir, "go.mod"))
		if err == nil && strings.HasPrefix(string(b), "module "+Project+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find Poplin's source: no go.mod of " + Project + " above the working directory; run it there")
		}
	}
}
