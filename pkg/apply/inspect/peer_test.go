package inspect

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/need"
)

// asNode has the test binary print what it finds out, as a process of a node.
const asNode = "INSPECT_TEST_AS_NODE"

func TestMain(m *testing.M) {
	if os.Getenv(asNode) != "" {
		if err := json.NewEncoder(os.Stdout).Encode(Peers([]facts.Way{
			{Node: "four", Outer: netip.MustParseAddr("192.0.2.2"), Inner: netip.MustParseAddr("192.0.2.2"), From: netip.MustParseAddr("192.0.2.1"), MTU: 1500},
			{Node: "six", Outer: netip.MustParseAddr("fd00:db8::2"), Inner: netip.MustParseAddr("fd00:db8::2"), From: netip.MustParseAddr("fd00:db8::1"), MTU: 1500},
		})); err != nil {
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// Two nodes with a cable between: what passes is told by its size, however
// often it is asked.
func TestPeers(t *testing.T) {
	need.Root(t)
	const near, far = "inspect-test-near", "inspect-test-far"
	ip := func(line string) {
		t.Helper()
		if out, err := exec.Command(need.Program(t, "ip", "iproute2"), strings.Fields(line)...).CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v: %s", line, err, out)
		}
	}
	for _, ns := range []string{near, far} {
		_ = exec.Command("ip", "netns", "del", ns).Run() // of an aborted run
		ip("netns add " + ns)
		t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	}
	for _, line := range []string{
		"-n " + near + " link add near type veth peer name far netns " + far,
		"-n " + near + " addr add 192.0.2.1/24 dev near", "-n " + near + " addr add fd00:db8::1/64 dev near nodad", "-n " + near + " link set near up",
		"-n " + far + " addr add 192.0.2.2/24 dev far", "-n " + far + " addr add fd00:db8::2/64 dev far nodad", "-n " + far + " link set far up",
	} {
		ip(line)
	}
	ask := func(when string) (list []facts.Peer) {
		t.Helper()
		cmd := exec.Command("ip", "netns", "exec", near, os.Args[0])
		cmd.Env = append(os.Environ(), asNode+"=1")
		out, err := cmd.Output()
		if err != nil || json.Unmarshal(out, &list) != nil || len(list) != 2 {
			t.Fatalf("%s: %v: %s", when, err, out)
		}
		return list
	}
	check := func(when string, want facts.Peer, exact bool) {
		t.Helper()
		for _, p := range ask(when) {
			if p.Small != want.Small || p.Large != want.Large || p.Below != want.Below || exact && p.Size != want.Size {
				t.Errorf("%s, %s: %+v", when, p.Node, p)
			}
		}
	}
	await.Success(t, 10*time.Second, func() error { // carrier and neighbours come a moment later
		if list := ask("at first"); !list[0].Small || !list[1].Small {
			return fmt.Errorf("%+v", list)
		}
		return nil
	})
	for range 12 { // more often than ICMP errors are sent
		check("a good way", facts.Peer{Small: true, Large: true, Below: true}, false)
	}
	// What is larger is lost without a word.
	ip("netns exec " + far + " nft add table inet hole")
	ip("netns exec " + far + " nft add chain inet hole in { type filter hook input priority 0; }")
	ip("netns exec " + far + " nft add rule inet hole in meta length > 1400 drop")
	check("a hole", facts.Peer{Small: true, Below: true, Size: 1400}, true)
	ip("-n " + near + " link set near down")
	check("no cable", facts.Peer{}, true)
}
