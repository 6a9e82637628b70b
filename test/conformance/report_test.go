package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestPage: what ran is in the part it belongs to, with what it came to; what was
// not chosen is not.
func TestPage(t *testing.T) {
	dir := t.TempDir()
	const junit = `<?xml version="1.0" encoding="UTF-8"?>
<testsuites tests="6"><testsuite name="Kubernetes e2e suite"><properties><property name="a" value="b"></property></properties>
<testcase name="[It] [sig-network] Services should serve &lt;a&gt; | b [Conformance]" status="passed"></testcase>
<testcase name="[It] [sig-network] DNS should be [Conformance]" status="failed"><failure message="no">why</failure></testcase>
<testcase name="[It] [sig-network] Services should allow pods to hairpin back to themselves" status="passed"></testcase>
<testcase name="[It] [sig-network] Netpol NetworkPolicy between server and client should deny all" status="passed"></testcase>
<testcase name="[It] [sig-storage] Volumes should be [Conformance]" status="skipped"><skipped message="skipped"></skipped></testcase>
<testcase name="[SynchronizedBeforeSuite]" status="passed"></testcase>
</testsuite></testsuites>`
	if err := os.WriteFile(filepath.Join(dir, "junit_01.xml"), []byte(junit), 0o600); err != nil {
		t.Fatal(err)
	}
	list, err := suite(dir)
	if err != nil {
		t.Fatal(err)
	}
	plugin := events([]byte(`{"Action":"run","Test":"TestVersion"}
{"Action":"output","Test":"TestVersion","Output":"x\n"}
{"Action":"pass","Test":"TestVersion/1.0.0"}
{"Action":"pass","Test":"TestVersion"}
{"Action":"skip","Test":"TestSCTP"}
{"Action":"pass"}
`))
	got := page(setting{day: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), version: "v1", kernel: "6.1", runtime: "containerd://2", kube: "v1.36.3", nodes: 3}, list, plugin)
	_, tables, _ := strings.Cut(got, "| kernel | 6.1 |\n\n")
	const want = `## Kubernetes' conformance, sig-network

All of them but those marked Disruptive. 1 passed, 1 failed.

| test | result |
| --- | --- |
| DNS should be [Conformance] | failed |
| Services should serve <a> \| b [Conformance] | passed |

## Further tests about Services

What conformance leaves out. Why two of the suite's are not among them stands in ` + "`test/conformance/main.go`" + `. 1 passed, 0 failed.

| test | result |
| --- | --- |
| Services should allow pods to hairpin back to themselves | passed |

## Network policies

The suite's tables of who reaches whom, but for those of SCTP. 1 passed, 0 failed.

| test | result |
| --- | --- |
| Netpol NetworkPolicy between server and client should deny all | passed |

## CNI specification 1.1

The tests of ` + "`test/cni`" + `. Which line of the specification each shows: [cni-spec.md](cni-spec.md). 1 passed, 0 failed, 1 skipped.

| test | result |
| --- | --- |
| TestSCTP | skipped |
| TestVersion | passed |
`
	if tables != want {
		t.Errorf("got\n%s\nwant\n%s", tables, want)
	}
	if !strings.Contains(got, "| day | 2026-01-02 |\n| Poplin | v1 |\n| Kubernetes | v1.36.3, 3 nodes,") {
		t.Errorf("head:\n%s", got[:len(got)-len(tables)])
	}
	if _, err := suite(t.TempDir()); err == nil {
		t.Error("results that nobody left were read")
	}
}
