// Package need says what a test wants of the machine. Where it is missing the
// test is skipped with the reason; in CI (environment CI=true) that is a
// failure, unless test/known-absent.txt names the kernel feature: a skip must
// never be mistaken for a pass.
package need

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"poplin.dev/poplin/test/thread"
)

// Root wants effective user 0.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "root", "run as root: the test makes network namespaces")
	}
}

// Program wants an executable in PATH and returns its path.
func Program(t testing.TB, name, debianPackage string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, name, "apt-get install "+debianPackage)
	}
	return path
}

// Link wants the kernel to know a kind of network device ("vxlan", "veth").
// It is probed in a network namespace of its own.
func Link(t testing.TB, kind string) {
	t.Helper()
	Root(t)
	if err := thread.Discard(func() error { return probeLink(kind) }); err != nil {
		Missing(t, kind, "the kernel cannot make such a device: "+err.Error())
	}
}

// probeLink runs on a thread that is thrown away with the namespace it enters.
func probeLink(kind string) error {
	ns, err := netns.New()
	if err != nil {
		return err
	}
	defer ns.Close()
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		return err
	}
	defer h.Close()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "probe0"
	if kind == "vxlan" {
		return h.LinkAdd(&netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1, Port: 8472})
	}
	return h.LinkAdd(&netlink.GenericLink{LinkAttrs: attrs, LinkType: kind})
}

// OwnedTables are nftables tables that only their owner may change and that
// survive it.
const OwnedTables = "nft-owned-tables"

// Missing ends a test that has found out by itself that a feature, named as in
// test/known-absent.txt, is not there.
func Missing(t testing.TB, feature, reason string) {
	t.Helper()
	if os.Getenv("CI") == "true" && !slices.Contains(knownAbsent(t), feature) {
		t.Fatalf("%s is missing (%s), and test/known-absent.txt does not name it", feature, reason)
	}
	t.Skipf("%s is missing: %s", feature, reason)
}

// knownAbsent reads test/known-absent.txt: a feature a line, # starts a comment.
func knownAbsent(t testing.TB) []string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		b, err := os.ReadFile(dir + "/test/known-absent.txt")
		if err == nil {
			var list []string
			for line := range strings.Lines(string(b)) {
				line, _, _ = strings.Cut(line, "#")
				list = append(list, strings.Fields(line)...)
			}
			return list
		}
		up := dir[:max(strings.LastIndexByte(dir, '/'), 0)]
		if !errors.Is(err, os.ErrNotExist) || up == dir || up == "" {
			t.Fatalf("read test/known-absent.txt: %v", err)
		}
		dir = up
	}
}
