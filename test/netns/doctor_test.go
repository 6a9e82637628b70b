package netns

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"poplin.dev/poplin/daemon/doctor"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// TestDoctor examines a node before Poplin is on it: the kernel is asked for what
// pods will need, what it gave is gone again, and another program's firewall is
// found. A second examination finds the same.
func TestDoctor(t *testing.T) {
	t.Parallel()
	need.Link(t, "vxlan")
	n := &node{Space: space.New(t)}
	n.nft(t, "add table ip filter; add chain ip filter FORWARD { type filter hook forward priority 0; policy drop; }")
	if err := n.Do(func() error { return os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("0"), 0) }); err != nil {
		t.Fatal(err)
	}
	before := n.nft(t, "list", "ruleset")
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "87-podman.conflist"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		var r doctor.Report
		if err := n.Do(func() error {
			r = doctor.Run(t.Context(), "worker-1", doctor.Places{Socket: filepath.Join(dir, "none"), ConfDir: dir, CNICache: dir})
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, c := range r.Checks {
			got[c.Name] = fmt.Sprintf("%s %s", c.State, c.Found)
		}
		for name, want := range map[string]string{
			"kernel: veth": "ok made", "kernel: vxlan": "ok made", "kernel: masquerade": "ok made",
			"kernel: nftables, reverse path, untracked packets": "ok made",
			"daemon":          "broken it does not answer",
			"forwarding IPv4": "broken net/ipv4/ip_forward is 0",
			"other firewalls": "broken drop what is forwarded: ip filter FORWARD",
			"runtime":         "warning it takes 87-podman.conflist",
			"addresses":       "unknown find the node's ranges",
		} {
			if !contains(got[name], want) {
				t.Errorf("%s: %q, want %q", name, got[name], want)
			}
		}
	}
	// Beside a living overlay, the same is asked of the kernel.
	l := newLab(t, dual, 1)
	l.startAll(t)
	if err := l.nodes[0].Do(func() error {
		for _, c := range doctor.Run(t.Context(), "worker-1", doctor.Places{}).Checks {
			if contains(c.Name, "kernel: ") && c.State != doctor.Well {
				t.Errorf("beside the overlay: %+v", c)
			}
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if after := n.nft(t, "list", "ruleset"); after != before {
		t.Errorf("the doctor leaves\n%s\nwhere there was\n%s", after, before)
	}
	if _, err := n.NL.LinkByName("poplin-probe"); err == nil {
		t.Error("the doctor leaves a device")
	}
}
