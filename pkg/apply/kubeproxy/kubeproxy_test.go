package kubeproxy

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// leftovers are what kube-proxy 1.36 leaves, in its three modes; rules and
// chains beside them are others'.
const leftovers = `
table ip kube-proxy { chain services { type nat hook prerouting priority dstnat; goto service; }; chain service { }; }
table ip6 kube-proxy { chain services { }; }
table inet kube-proxy { chain mine { }; }
table ip nat {
	chain KUBE-SERVICES { jump KUBE-SVC-ABC; jump KUBE-NODEPORTS; }
	chain KUBE-NODEPORTS { }
	chain KUBE-SVC-ABC { ip saddr 10.0.0.1 jump KUBE-MARK-MASQ; jump KUBE-SEP-DEF; }
	chain KUBE-SEP-DEF { }
	chain KUBE-MARK-MASQ { mark set mark or 0x4000; }
	chain PREROUTING { type nat hook prerouting priority dstnat; jump KUBE-SERVICES; jump DOCKER; }
	chain DOCKER { counter; }
}
table ip6 filter {
	chain KUBE-FIREWALL { drop; }
	chain KUBE-FORWARD { accept; }
	chain FORWARD { type filter hook forward priority filter; counter jump KUBE-FORWARD; jump KUBE-FIREWALL; }
}
`

func TestRemove(t *testing.T) {
	need.Root(t)
	node := space.New(t)
	run := func(stdin string, args ...string) (out []byte) {
		t.Helper()
		if err := node.Do(func() (err error) {
			cmd := exec.Command(args[0], args[1:]...)
			cmd.Stdin = strings.NewReader(stdin)
			out, err = cmd.CombinedOutput()
			return err
		}); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
		return out
	}
	// In order of use, as nft wants it.
	run(strings.ReplaceAll(leftovers, "goto service;", ""), "nft", "-f", "-")
	run("", "ip", "link", "add", device, "type", "bridge") // kube-proxy makes a dummy device, which kernels may lack
	remove := func() (removed []string) {
		t.Helper()
		if err := node.Do(func() (err error) { removed, err = Remove(); return err }); err != nil {
			t.Fatal(err)
		}
		return removed
	}
	got := remove()
	slices.Sort(got)
	want := []string{"1 chains KUBE-* of table ip6 filter", "5 chains KUBE-* of table ip nat", "device kube-ipvs0", "table ip kube-proxy", "table ip6 kube-proxy"}
	if !slices.Equal(got, want) {
		t.Errorf("removed %q, want %q", got, want)
	}
	left := string(run("", "nft", "list", "ruleset"))
	for _, part := range []string{"table inet kube-proxy", "jump DOCKER", "jump KUBE-FIREWALL"} {
		if !strings.Contains(left, part) {
			t.Errorf("%s is gone:\n%s", part, left)
		}
	}
	for _, part := range []string{"KUBE-SERVICES", "KUBE-SVC", "KUBE-FORWARD", "table ip kube-proxy"} {
		if strings.Contains(left, part) {
			t.Errorf("%s is left:\n%s", part, left)
		}
	}
	if again := remove(); len(again) != 0 {
		t.Errorf("removed %q once more", again)
	}
}
