package foreign

import (
	"net/netip"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netns"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/test/need"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(need.Program(t, name, "iptables"), args...).Output()
	if err != nil {
		t.Fatalf("%s %v: %v", name, args, err)
	}
	return string(out)
}

func set(t *testing.T, w Want, wantBlocking ...string) diff.Result {
	t.Helper()
	res, err := Firewall{}.Set(w)
	if err != nil {
		t.Fatal(err)
	}
	blocking, err := Firewall{}.Blocking()
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(blocking)
	if !slices.Equal(blocking, wantBlocking) {
		t.Errorf("blocking: %v, want %v", blocking, wantBlocking)
	}
	return res
}

// TestSet: rules come where a policy drops, go with it, come back when
// somebody flushes them, and iptables can show them.
func TestSet(t *testing.T) {
	need.Root(t)
	runtime.LockOSThread() // never unlocked: the thread goes with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	ns.Close()
	want := Want{Link: "poplin-vx", Ranges: []netip.Prefix{
		netip.MustParsePrefix("10.244.0.0/20"), netip.MustParsePrefix("10.2.3.0/24"), netip.MustParsePrefix("fd00:10:244::/56")}}
	if res := set(t, want); !res.Zero() {
		t.Errorf("without any other firewall: %+v", res)
	}
	run(t, "iptables-nft", "-A", "FORWARD", "-s", "192.0.2.0/24", "-j", "DROP")
	if res := set(t, want); !res.Zero() {
		t.Errorf("where the policy is to accept: %+v", res)
	}
	run(t, "iptables-nft", "-P", "FORWARD", "DROP")
	run(t, "ip6tables-nft", "-P", "FORWARD", "DROP")
	if blocked := []string{"ip filter FORWARD", "ip6 filter FORWARD"}; set(t, Want{}, blocked...) != (diff.Result{}) {
		t.Error("only reported, and something changed")
	}
	if res := set(t, want); res != (diff.Result{Added: 10}) {
		t.Errorf("first: %+v", res)
	}
	if res := set(t, want); !res.Zero() {
		t.Errorf("second: %+v", res)
	}
	comment := ` -m comment --comment "` + Comment + `" -j ACCEPT` + "\n"
	const policies = "-P INPUT ACCEPT\n-P FORWARD DROP\n-P OUTPUT ACCEPT\n"
	first := "-A FORWARD -s 192.0.2.0/24 -j DROP\n"
	var rules4, rules6 string
	for _, match := range []string{"-i poplin-vx", "-o poplin-vx", "-s 10.244.0.0/20", "-d 10.244.0.0/20", "-s 10.2.3.0/24", "-d 10.2.3.0/24"} {
		rules4 += "-A FORWARD " + match + comment
	}
	for _, match := range []string{"-i poplin-vx", "-o poplin-vx", "-s fd00:10:244::/56", "-d fd00:10:244::/56"} {
		rules6 += "-A FORWARD " + match + comment
	}
	if got := run(t, "iptables-nft", "-S"); got != policies+first+rules4 {
		t.Errorf("iptables shows\n%s", got)
	}
	if got := run(t, "ip6tables-nft", "-S"); got != policies+rules6 {
		t.Errorf("ip6tables shows\n%s", got)
	}
	before, err := Firewall{}.Generation()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := (Firewall{}).Generation(); err != nil || again != before {
		t.Errorf("generation %d, then %d, %v", before, again, err)
	}
	// What is saved and restored is still known.
	restore := exec.Command(need.Program(t, "iptables-nft-restore", "iptables"))
	restore.Stdin = strings.NewReader(run(t, "iptables-nft-save"))
	if out, err := restore.CombinedOutput(); err != nil {
		t.Fatalf("iptables-restore: %v: %s", err, out)
	}
	set(t, want)
	if got := run(t, "iptables-nft", "-S"); got != policies+first+rules4 {
		t.Errorf("after saving and restoring, iptables shows\n%s", got)
	}
	if after, err := (Firewall{}).Generation(); err != nil || after == before {
		t.Errorf("generation %d and still %d, %v", before, after, err)
	}
	run(t, "iptables-nft", "-F", "FORWARD")
	if res := set(t, want); res != (diff.Result{Added: 6}) {
		t.Errorf("after a flush: %+v", res)
	}
	run(t, "iptables-nft", "-P", "FORWARD", "ACCEPT")
	if res := set(t, want); res != (diff.Result{Removed: 6}) {
		t.Errorf("after the policy changed: %+v", res)
	}
	if res := set(t, Want{}, "ip6 filter FORWARD"); res != (diff.Result{Removed: 4}) {
		t.Errorf("removal: %+v", res)
	}
}
