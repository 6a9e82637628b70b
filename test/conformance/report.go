package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/test/cluster"
)

// result is what a test came to: "passed", "failed" or what its suite says else.
type result struct{ name, state string }

// suite reads the results of the tests that ran from the file in JUnit's form
// that Kubernetes' suite leaves in a directory, by name.
func suite(dir string) ([]result, error) {
	var file struct {
		Cases []struct {
			Name   string `xml:"name,attr"`
			Status string `xml:"status,attr"`
		} `xml:"testsuite>testcase"`
	}
	path := filepath.Join(dir, "junit_01.xml")
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read results: %w", err)
	}
	if err := xml.Unmarshal(b, &file); err != nil {
		return nil, fmt.Errorf("read results in %s: %w", path, err)
	}
	var list []result
	for _, c := range file.Cases {
		// What is no test has another kind in front, such as [ReportAfterSuite].
		if name, test := strings.CutPrefix(c.Name, "[It] "); test && c.Status != "skipped" {
			list = append(list, result{name, c.Status})
		}
	}
	slices.SortFunc(list, func(a, b result) int { return strings.Compare(a.name, b.name) })
	return list, nil
}

// cni runs the tests of the plugin through libcni and by hand.
func cni(ctx context.Context) ([]result, error) {
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", "test", "-trimpath", "-buildvcs=false", "-count=1", "-json", "./test/cni")
	cmd.Stdout, cmd.Stderr = &out, os.Stderr
	err := cmd.Run()
	list := events(out.Bytes())
	if err != nil {
		err = fmt.Errorf("run ./test/cni: %w", err)
	}
	if len(list) == 0 {
		err = errors.Join(err, errors.New("run ./test/cni: no test ran"))
	}
	return list, err
}

// events are the results in what `go test -json` prints, without subtests.
func events(out []byte) []result {
	words := map[string]string{"pass": "passed", "fail": "failed", "skip": "skipped"}
	var list []result
	for lines := bufio.NewScanner(bytes.NewReader(out)); lines.Scan(); {
		var e struct{ Action, Test string }
		if json.Unmarshal(lines.Bytes(), &e) == nil && words[e.Action] != "" && e.Test != "" && !strings.Contains(e.Test, "/") {
			list = append(list, result{e.Test, words[e.Action]})
		}
	}
	slices.SortFunc(list, func(a, b result) int { return strings.Compare(a.name, b.name) })
	return list
}

// setting is what a report is about.
type setting struct {
	day     time.Time
	version string // of Poplin
	kernel  string
	runtime string // container runtime of the nodes
	kube    string // version of Kubernetes
	nodes   int
}

func about(ctx context.Context, c *cluster.Cluster, version string) (setting, error) {
	s := setting{day: time.Now().UTC(), version: version, kube: c.Kubernetes.Version, nodes: len(c.Nodes())}
	out, err := c.Kubectl(ctx, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo}")
	if err != nil {
		return s, fmt.Errorf("ask what nodes run: %w", err)
	}
	var info struct{ KernelVersion, ContainerRuntimeVersion string }
	if err := json.Unmarshal(out, &info); err != nil {
		return s, fmt.Errorf("ask what nodes run: %w", err)
	}
	s.kernel, s.runtime = info.KernelVersion, info.ContainerRuntimeVersion
	return s, nil
}

// page is the report. The same results give the same text.
func page(s setting, suite, plugin []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Conformance

Written by `+"`make conformance CONFORMANCE='-report docs/conformance.md'`"+`, which makes a
cluster, runs Kubernetes' own tests there and the tests of the CNI plugin beside it, and
writes what each came to.

| | |
| --- | --- |
| day | %s |
| Poplin | %s |
| Kubernetes | %s, %d nodes, IPv4 and IPv6, no kube-proxy |
| container runtime | %s |
| kernel | %s |

`, s.day.Format("2006-01-02"), s.version, s.kube, s.nodes, s.runtime, s.kernel)
	for _, part := range []struct {
		title, text string
		pattern     *regexp.Regexp
	}{
		{"Kubernetes' conformance, sig-network", "All of them but those marked Disruptive.", regexp.MustCompile(conformance)},
		{"Further tests about Services", "What conformance leaves out. Why two of the suite's are not among them stands in `test/conformance/main.go`.", regexp.MustCompile(beyond)},
		{"Network policies", "The suite's tables of who reaches whom, but for those of SCTP.", regexp.MustCompile(policies)},
	} {
		var own []result
		suite = slices.DeleteFunc(slices.Clone(suite), func(r result) bool {
			if part.pattern.MatchString(r.name) {
				own = append(own, r)
				return true
			}
			return false
		})
		table(&b, part.title, part.text, own)
	}
	if len(suite) > 0 {
		table(&b, "Others", "What else ran.", suite)
	}
	table(&b, "CNI specification 1.1", "The tests of `test/cni`. Which line of the specification each shows: [cni-spec.md](cni-spec.md).", plugin)
	return strings.TrimSuffix(b.String(), "\n")
}

func table(b *strings.Builder, title, text string, list []result) {
	counts := map[string]int{}
	for _, r := range list {
		counts[r.state]++
	}
	sums := fmt.Sprintf("%d passed, %d failed", counts["passed"], len(list)-counts["passed"]-counts["skipped"])
	if n := counts["skipped"]; n > 0 {
		sums += fmt.Sprintf(", %d skipped", n)
	}
	fmt.Fprintf(b, "## %s\n\n%s %s.\n\n| test | result |\n| --- | --- |\n", title, text, sums)
	for _, r := range list {
		fmt.Fprintf(b, "| %s | %s |\n", strings.ReplaceAll(strings.TrimPrefix(r.name, "[sig-network] "), "|", `\|`), r.state)
	}
	b.WriteString("\n")
}

// report runs the plugin's tests and writes the page.
func report(ctx context.Context, c *cluster.Cluster, o options) error {
	of, err := suite(o.reports)
	if err != nil {
		return err
	}
	s, err := about(ctx, c, o.version)
	if err != nil {
		return err
	}
	plugin, err := cni(ctx)
	if werr := os.WriteFile(o.report, []byte(page(s, of, plugin)), 0o644); werr != nil {
		err = errors.Join(err, fmt.Errorf("write report: %w", werr))
	}
	return err
}
