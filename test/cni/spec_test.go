package cni_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSpecificationIsCovered holds docs/cni-spec.md to the specification and to
// the tests that there are.
func TestSpecificationIsCovered(t *testing.T) {
	const root = "../.."
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Version}} {{.Dir}}", "github.com/containernetworking/cni").Output()
	no(t, err)
	version, dir, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	page, err := os.ReadFile(root + "/docs/cni-spec.md")
	no(t, err)
	if !strings.Contains(string(page), "containernetworking/cni "+version+")") {
		t.Errorf("the page is not about %s, which this module uses: read what changed in SPEC.md", version)
	}
	spec, err := os.ReadFile(filepath.Join(dir, "SPEC.md"))
	no(t, err)
	asks := regexp.MustCompile(`(?i)\b(must|shall|should|required)\b`)
	open := map[string]string{} // lines that ask something, by number
	for i, line := range strings.Split(string(spec), "\n") {
		if asks.MatchString(line) {
			open[fmt.Sprint(i+1)] = line
		}
	}
	if len(open) < 50 {
		t.Fatalf("%d lines of SPEC.md ask something", len(open))
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	for _, row := range strings.Split(string(page), "\n") {
		cells := strings.Split(row, "|")
		if len(cells) != 5 || !strings.ContainsAny(cells[1], "0123456789") {
			continue
		}
		for _, number := range strings.Split(cells[1], ",") {
			number = strings.TrimSpace(number)
			if _, found := open[number]; !found {
				t.Errorf("line %s of SPEC.md asks nothing, or is here twice", number)
			}
			delete(open, number)
		}
		pkg, tests := "", 0
		for _, m := range quoted.FindAllStringSubmatch(cells[3], -1) {
			if strings.Contains(m[1], "/") {
				pkg = m[1]
				continue
			}
			if tests++; !hasTest(t, filepath.Join(root, pkg), m[1]) {
				t.Errorf("%s has no test %s", pkg, m[1])
			}
		}
		if (tests == 0) != (strings.TrimSpace(cells[3]) == "-") {
			t.Errorf("no test in %s", row)
		}
	}
	for number, line := range open {
		t.Errorf("line %s of SPEC.md has no row: %s", number, line)
	}
}

func hasTest(t *testing.T, dir, name string) bool {
	t.Helper()
	files, err := filepath.Glob(dir + "/*_test.go")
	no(t, err)
	return slices.ContainsFunc(files, func(f string) bool {
		b, err := os.ReadFile(f)
		return err == nil && strings.Contains(string(b), "\nfunc "+name+"(")
	})
}

func TestVersion(t *testing.T) {
	n := node(t)
	out, err := n.Exec("poplin", `{"cniVersion":"1.0.0"}`, "CNI_COMMAND=VERSION")
	var answer struct {
		CNIVersion        string
		SupportedVersions []string
	}
	if err != nil || json.Unmarshal(out, &answer) != nil || answer.CNIVersion == "" || !slices.Equal(answer.SupportedVersions, []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}) {
		t.Errorf("%v, %s", err, out)
	}
}

// TestFailedIPAMGetsDel: what its ADD began, its DEL ends, and its error is ours.
func TestFailedIPAMGetsDel(t *testing.T) {
	dir := t.TempDir()
	no(t, os.WriteFile(filepath.Join(dir, "failing"), []byte(`#!/bin/sh
echo $CNI_COMMAND >> `+dir+`/calls
[ $CNI_COMMAND = DEL ] || { echo '{"cniVersion":"1.0.0","code":11,"msg":"pool is empty","details":"ask later"}'; exit 1; }
`), 0o755))
	n, p := node(t, dir), pod(t)
	conf := `{"cniVersion":"1.0.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"failing"}}`
	out, err := n.Exec("poplin", conf, "CNI_COMMAND=ADD", "CNI_CONTAINERID="+p.ID, "CNI_NETNS="+p.Path(), "CNI_IFNAME=eth0", "CNI_PATH="+dir)
	refused(t, out, err, 11, "pool is empty", "ask later")
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	no(t, err)
	if got := strings.Fields(string(calls)); !slices.Equal(got, []string{"ADD", "DEL"}) {
		t.Errorf("IPAM was called with %v", got)
	}
	empty(t, n, p)
}
