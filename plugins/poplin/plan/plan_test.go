package plan

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func route(s string) Route { return Route{Dst: netip.MustParsePrefix(s)} }

func TestNew(t *testing.T) {
	for name, row := range map[string]struct {
		addrs, node []netip.Addr
		routes      []Route
		want        string // addresses via gateway from source; routes via gateway
	}{
		"IPv4": {addrs("10.244.1.2"), nil, nil, "[10.244.1.2 169.254.1.1 invalid IP] [0.0.0.0/0 169.254.1.1]"},
		"IPv6": {addrs("fd00::2"), addrs("192.0.2.1"), nil, "[fd00::2 fe80::1 invalid IP] [::/0 fe80::1]"},
		"both": {addrs("10.244.1.2", "fd00::2"), addrs("2001:db8::1", "192.0.2.1"), nil,
			"[10.244.1.2 169.254.1.1 192.0.2.1] [fd00::2 fe80::1 2001:db8::1] [0.0.0.0/0 169.254.1.1] [::/0 fe80::1]"},
		"two of a family": {addrs("10.244.1.2", "10.9.0.2"), nil, nil,
			"[10.244.1.2 169.254.1.1 invalid IP] [10.9.0.2 169.254.1.1 invalid IP] [0.0.0.0/0 169.254.1.1]"},
		"routes": {addrs("10.244.1.2"), nil, []Route{route("0.0.0.0/0"), route("10.8.7.6/16"), route("10.8.0.0/16")},
			"[10.244.1.2 169.254.1.1 invalid IP] [0.0.0.0/0 169.254.1.1] [10.8.0.0/16 169.254.1.1]"},
	} {
		p, err := New(Request{ContainerID: "c", IfName: "eth0", MTU: 1450, Addrs: row.addrs, NodeAddresses: row.node, Routes: row.routes})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var got []string
		for _, a := range p.Addresses {
			got = append(got, fmt.Sprintf("[%s %s %s]", a.Addr, a.Gateway, a.Source))
		}
		for _, r := range p.Routes {
			got = append(got, fmt.Sprintf("[%s %s]", r.Dst, r.Gateway))
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s:\ngot  %s\nwant %s", name, s, row.want)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	for want, r := range map[string]Request{
		"IPAM gave no address":                      {MTU: 1450},
		"127.0.0.1, which is no address":            {MTU: 1450, Addrs: addrs("127.0.0.1")},
		"ff02::1, which is no address":              {MTU: 1450, Addrs: addrs("ff02::1")},
		"169.254.1.1, which is no address":          {MTU: 1450, Addrs: addrs("169.254.1.1")},
		"mtu: 1279 is less than the 1280":           {MTU: 1279, Addrs: addrs("fd00::2")},
		"ipam.routes: ::/0 has no address":          {MTU: 1450, Addrs: addrs("10.244.1.2"), Routes: []Route{route("::/0")}},
		"a route without destination":               {MTU: 1450, Addrs: addrs("10.244.1.2"), Routes: []Route{{}}},
		"invalid IP, which is no address for a pod": {MTU: 1450, Addrs: []netip.Addr{{}}},
	} {
		if _, err := New(r); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func TestNamesAreDerived(t *testing.T) {
	p, err := New(Request{ContainerID: "0123", IfName: "eth0", Namespace: "default", Name: strings.Repeat("x", 300), MTU: 1450, Addrs: addrs("10.244.1.2")})
	if err != nil {
		t.Fatal(err)
	}
	if got := p.Host.Name; len(got) != 15 || !strings.HasPrefix(got, "plw") || got != HostName("0123", "eth0") {
		t.Errorf("host link %q", got)
	}
	if HostName("a", "b/c") == HostName("a/b", "d") || HostName("0123", "eth0") == HostName("0123", "eth1") {
		t.Error("two attachments share a name")
	}
	if m := p.Pod.MAC; m[0]&3 != 2 || m == HostMAC {
		t.Errorf("pod's MAC %s is not local and unicast", m)
	}
	if HostMAC[0]&3 != 2 {
		t.Errorf("host's MAC %s is not local and unicast", HostMAC)
	}
	if len(p.Host.Alias) != maxAlias {
		t.Errorf("alias of %d bytes", len(p.Host.Alias))
	}
}
