package underlay

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/need"
)

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

// A LAN with one host in it and one behind a router: the hosts reach each other
// in both families, and nothing to or from a forbidden prefix passes.
func TestNetwork(t *testing.T) {
	need.Root(t)
	need.Link(t, "veth")
	need.Link(t, "bridge")
	need.Program(t, "nft", "nftables")
	need.Program(t, "ping", "iputils-ping")
	name := func(s string) string { return fmt.Sprintf("underlay-test-%d-%s", os.Getpid(), s) }
	for _, s := range []string{"lan", "a", "b", "router"} {
		t.Cleanup(func() {
			if err := Remove(name(s)); err != nil {
				t.Error(err)
			}
		})
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	lan := LAN{
		Namespace: name("lan"),
		Gateways:  prefixes("172.30.0.1/24", "fd00:30::1/64"),
		Forbidden: prefixes("10.244.0.0/16", "fd00:10:244::/56"),
	}
	must(lan.Make())
	a := Host{Namespace: name("a"), Port: "a",
		Addresses: prefixes("172.30.0.11/24", "fd00:30::11/64", "10.244.1.1/32"), Gateways: addrs("172.30.0.1", "fd00:30::1"),
		Routes: []Route{
			{netip.MustParsePrefix("172.30.1.0/24"), netip.MustParseAddr("172.30.0.254")},
			{netip.MustParsePrefix("fd00:30:0:1::/64"), netip.MustParseAddr("fd00:30::fe")},
		}}
	must(lan.Connect(a))
	router := Router{
		Host: Host{Namespace: name("router"), Port: "router",
			Addresses: prefixes("172.30.0.254/24", "fd00:30::fe/64"), Gateways: addrs("172.30.0.1", "fd00:30::1")},
		Leg: prefixes("172.30.1.1/24", "fd00:30:0:1::1/64"),
	}
	must(lan.ConnectRouter(router))
	b := Host{Namespace: name("b"), Port: "b",
		Addresses: prefixes("172.30.1.12/24", "fd00:30:0:1::12/64"), Gateways: addrs("172.30.1.1", "fd00:30:0:1::1")}
	must(router.ConnectBehind(b))

	ping := func(from string, args ...string) error {
		args = append([]string{"--net=" + Path(name(from)), "ping", "-n", "-c1", "-W1"}, args...)
		return exec.Command("nsenter", args...).Run()
	}
	// The first packet may wait for a neighbour, on a busy machine longer than ping.
	reaches := func(from, to string) (err error) {
		for deadline := time.Now().Add(15 * time.Second); time.Now().Before(deadline); {
			if err = ping(from, to); err == nil {
				return nil
			}
		}
		return err
	}
	for _, to := range []string{"172.30.0.1", "fd00:30::1", "172.30.1.12", "fd00:30:0:1::12"} {
		if err := reaches("a", to); err != nil {
			t.Errorf("a does not reach %s: %v", to, err)
		}
	}
	if ping("a", "-I", "10.244.1.1", "172.30.0.1") == nil {
		t.Error("a packet from a forbidden address was answered")
	}
	if out, err := exec.Command("nsenter", "--net="+Path(name("lan")), "nft", "list", "table", "bridge", "forbidden").Output(); err != nil || !strings.Contains(string(out), "saddr 10.244.0.0/16 counter packets 1 ") {
		t.Errorf("the LAN did not count the dropped packet: %v\n%s", err, out)
	}
	must(Unplug(router.Namespace, "b"))
	must(Unplug(router.Namespace, "b"))
	must(Remove(name("b")))
	must(Remove(name("b")))
	must(router.ConnectBehind(b)) // a node that was switched off comes back to its port
	if err := reaches("a", "fd00:30:0:1::12"); err != nil {
		t.Errorf("b does not answer after its return: %v", err)
	}
	if err := lan.Connect(a); err == nil {
		t.Error("a taken name is not refused")
	}
}
