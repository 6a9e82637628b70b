package main

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

	"poplin.dev/poplin/install/image/oci"
)

const module = "poplin.dev/poplin"

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

// licences collects the licence texts of Go and of every module that is linked
// into one of the programs.
func licences(programs []string) ([]oci.File, error) {
	linked := map[string]string{} // module@version -> directory of its source
	for _, program := range programs {
		info, err := buildinfo.ReadFile(program)
		if err != nil {
			return nil, fmt.Errorf("read program %s: %w", program, err)
		}
		for _, dep := range info.Deps {
			if dep.Replace != nil {
				dep = dep.Replace
			}
			linked[dep.Path+"@"+dep.Version] = filepath.Join(moduleCache(), escape(dep.Path)+"@"+escape(dep.Version))
		}
	}
	goroot, err := goRoot()
	if err != nil {
		return nil, err
	}
	own, err := projectRoot()
	if err != nil {
		return nil, err
	}
	linked["go"], linked[module] = goroot, own
	var files []oci.File
	for name, dir := range linked {
		texts, err := licenceTexts(dir)
		if err != nil {
			return nil, fmt.Errorf("collect licence of %s: %w", name, err)
		}
		for _, text := range texts {
			files = append(files, oci.File{Path: "/licenses/" + name + "/" + filepath.Base(text), Mode: 0o644, Source: text})
		}
	}
	return files, nil
}

func licenceTexts(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("%w; run go mod download", err)
	}
	var texts []string
	for _, entry := range entries {
		upper := strings.ToUpper(entry.Name())
		licence := slices.ContainsFunc([]string{"LICENSE", "LICENCE", "COPYING", "NOTICE"}, func(prefix string) bool {
			return strings.HasPrefix(upper, prefix)
		})
		if licence && entry.Type().IsRegular() && filepath.Ext(upper) != ".GO" {
			texts = append(texts, filepath.Join(dir, entry.Name()))
		}
	}
	if len(texts) == 0 {
		return nil, fmt.Errorf("%s holds no LICENSE, COPYING or NOTICE", dir)
	}
	return texts, nil
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
		if err == nil && strings.HasPrefix(string(b), "module "+module+"\n") {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find Poplin's source: no go.mod of " + module + " above the working directory; run it there")
		}
	}
}
