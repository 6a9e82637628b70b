package observe

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/thread"
)

const ns = "observe-test"

// asWatcher has the test binary watch until it is killed.
const asWatcher = "OBSERVE_TEST_AS_WATCHER"

func TestMain(m *testing.M) {
	if os.Getenv(asWatcher) != "" {
		if _, err := Open(flows(netip.MustParseAddr("127.0.0.1")), 8472); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		select {}
	}
	os.Exit(m.Run())
}

func flows(to netip.Addr) []facts.Flow {
	return []facts.Flow{{To: netip.AddrPortFrom(to, port), Proto: service.TCP}}
}

const port = 8080

func space(t *testing.T) {
	t.Helper()
	need.Root(t)
	need.Program(t, "nft", "nftables")
	_ = exec.Command("ip", "netns", "del", ns).Run() // of an aborted run
	run(t, "ip", "netns", "add", ns)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", ns).Run() })
	run(t, "ip", "-n", ns, "link", "set", "lo", "up")
}

func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
	return string(out)
}

func ruleset(t *testing.T) string { return run(t, "ip", "netns", "exec", ns, "nft", "list", "ruleset") }

// watched asks for a connection, which nobody accepts, while the observer looks.
func watched(t *testing.T, to netip.Addr) (seen []facts.Sighting, counted map[string]uint64) {
	t.Helper()
	err := thread.In("/run/netns/"+ns, func() error {
		o, err := Open(flows(to), 8472)
		if err != nil {
			return err
		}
		d := net.Dialer{Timeout: 300 * time.Millisecond}
		for _, p := range []uint16{port, port + 1} { // the second is nobody's business
			if c, err := d.Dial("tcp", netip.AddrPortFrom(to, p).String()); err == nil {
				_ = c.Close()
			}
		}
		seen, counted, err = o.Close()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return seen, counted
}

// A packet is seen at each hook on its way, its answer too, others are not, and
// the table is gone afterwards.
func TestObserver(t *testing.T) {
	space(t)
	before := ruleset(t)
	for _, to := range []string{"127.0.0.1", "::1"} {
		seen, counted := watched(t, netip.MustParseAddr(to))
		var there, back []string
		for _, s := range seen {
			if s.Of.Port() != port {
				t.Errorf("%s: %+v was seen, which nobody asked for", to, s)
			}
			at := s.Hook + " " + s.Point
			if s.Back {
				back = append(back, at)
			} else {
				there = append(there, at)
			}
		}
		want := []string{"output begin", "postrouting end", "prerouting begin", "input end"}
		if !slices.Equal(there, want) || !slices.Equal(back, want) {
			t.Errorf("%s: seen %v, and as an answer %v; want %v", to, there, back, want)
		}
		if counted["input-end"] != 2 || counted["forward-end"] != 0 {
			t.Errorf("%s: counted %v, want a packet and its answer at input-end", to, counted)
		}
	}
	if after := ruleset(t); after != before {
		t.Errorf("left behind:\n%s", after)
	}
}

// The rule that dropped it is named, also in a chain that another jumps to, and
// so is a policy.
func TestDropIsNamed(t *testing.T) {
	space(t)
	load := func(text string) {
		cmd := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	for _, of := range []struct {
		name, rules, chain string
		policy             bool
	}{
		{"jump", "table inet wall { chain far { tcp dport 8080 drop; }; chain in { type filter hook input priority 0; jump far; }; }", "inet wall far", false},
		{"reject", "table ip wall { chain in { type filter hook input priority 0; tcp dport 8080 reject; }; }", "ip wall in", false},
		{"policy", "table inet wall { chain in { type filter hook input priority 0; policy drop; }; }", "inet wall in", true},
	} {
		load(of.rules)
		seen, _ := watched(t, netip.MustParseAddr("127.0.0.1"))
		i := slices.IndexFunc(seen, func(s facts.Sighting) bool { return s.Drops })
		if i < 0 {
			t.Errorf("%s: no drop was seen: %+v", of.name, seen)
		} else if s := seen[i]; s.Chain != of.chain || s.Hook != "input" || (s.Handle == 0) != of.policy || s.Dst.Port() != port {
			t.Errorf("%s: seen %+v", of.name, s)
		}
		load("flush ruleset")
	}
}

// Of an observer that is killed nothing is left: the kernel takes its table away.
func TestKilledObserver(t *testing.T) {
	space(t)
	before := ruleset(t)
	cmd := exec.Command("ip", "netns", "exec", ns, os.Args[0])
	cmd.Env = append(os.Environ(), asWatcher+"=1")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	await.Success(t, 10*time.Second, func() error {
		if out := ruleset(t); !strings.Contains(out, "table inet "+Prefix) {
			return fmt.Errorf("no table yet: %s", out)
		}
		return nil
	})
	if out, err := exec.Command("ip", "netns", "exec", ns, "nft", "flush", "ruleset").CombinedOutput(); err != nil || !strings.Contains(ruleset(t), Prefix) {
		t.Errorf("others can remove the table: %v %s", err, out)
	}
	if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	await.Success(t, 10*time.Second, func() error {
		if after := ruleset(t); after != before {
			return fmt.Errorf("left behind:\n%s", after)
		}
		return nil
	})
}

// What travels is what was seen.
func TestSightingTravels(t *testing.T) {
	s := facts.Sighting{Packet: 7, Hook: "input", Chain: "inet wall in", Drops: true, Src: netip.MustParseAddrPort("[::1]:1"), Dst: netip.MustParseAddrPort("[::1]:2")}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	var got facts.Sighting
	if err := json.Unmarshal(text, &got); err != nil || got != s {
		t.Errorf("%s became %+v: %v", text, got, err)
	}
}
