package doctor

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/daemon/status"
)

// well is a node without a fault.
func well() Facts {
	return Facts{
		Features: map[string]error{"vxlan": nil}, Owned: true,
		Daemon: &status.Report{
			Version: "1", Ready: true, Peers: 2, MTU: 1450, Checksums: "the network card's work, tested with node b",
			PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:10:244:1::/64")},
			Underlay: &status.Underlay{Link: "eth0", MTU: 1500},
			Tasks:    []status.Task{{Name: "overlay"}},
		},
		Sysctls:   map[string]int{"ipv4/ip_forward": 1, "ipv6/conf/all/forwarding": 1, "netfilter/nf_conntrack_count": 10, "netfilter/nf_conntrack_max": 100},
		Links:     map[string]int{"eth0": 1500, "poplin-vx": 1450, "plw0": 1450},
		Conflists: []string{"10-poplin.conflist"},
	}
}

// Each fault is found under its name, with a cure, and nothing else is.
func TestJudge(t *testing.T) {
	for _, c := range Judge(well()) {
		if c.State != Well || c.Cure != "" || c.Found == "" {
			t.Errorf("nothing is wrong, and %+v", c)
		}
	}
	for _, tt := range []struct {
		name  string
		harm  func(*Facts)
		state State
		check string
		found string
	}{
		{"no VXLAN", func(f *Facts) { f.Features["vxlan"] = errors.New("operation not supported") }, Broken, "kernel: vxlan", "not supported"},
		{"an old kernel", func(f *Facts) { f.Owned = false }, Warning, "kernel: owned tables", "has none"},
		{"no daemon", func(f *Facts) { f.Daemon, f.DaemonErr = nil, errors.New("connection refused") }, Broken, "daemon", "refused"},
		{"a task waits", func(f *Facts) { f.Daemon.Tasks[0].Waiting = "the Node to change" }, Broken, "daemon: overlay", "the Node to change"},
		{"a peer is refused", func(f *Facts) { f.Daemon.Refused = []status.Refusal{{Node: "b", Reason: "overlaps"}} }, Broken, "peer b", "overlaps"},
		{"a peer is silent", func(f *Facts) { f.Daemon.Silent = []string{"b"} }, Warning, "peers", "b do not answer"},
		{"a bad card", func(f *Facts) { f.Daemon.Checksums = "the CPU's work: ..., whose driver or firmware is at fault" }, Warning, "checksum offload", "CPU"},
		{"a bad key", func(f *Facts) { f.Daemon.ConfigError = "overlay.mut: unknown key" }, Broken, "configuration", "mut"},
		{"no restart", func(f *Facts) { f.Daemon.Pending = []string{"overlay.mtu"} }, Warning, "configuration", "overlay.mtu"},
		{"no forwarding", func(f *Facts) { f.Sysctls["ipv6/conf/all/forwarding"] = 0 }, Broken, "forwarding IPv6", "is 0"},
		{"forwarding is not known", func(f *Facts) { delete(f.Sysctls, "ipv4/ip_forward") }, Unknown, "forwarding IPv4", "cannot be read"},
		{"connections", func(f *Facts) { f.Sysctls["netfilter/nf_conntrack_count"] = 95 }, Broken, "connections", "95 of 100"},
		{"Docker", func(f *Facts) { f.Blocking = []string{"ip filter FORWARD"} }, Broken, "other firewalls", "ip filter FORWARD"},
		{"no rights", func(f *Facts) { f.BlockingErr = errors.New("not permitted") }, Unknown, "other firewalls", "not permitted"},
		{"flannel was here", func(f *Facts) { f.Links["flannel.1"] = 1450 }, Warning, "leftovers", "flannel.1"},
		{"a smaller underlay", func(f *Facts) { f.Links["eth0"] = 1400 }, Broken, "MTU", "1450 for pods, 1400 of eth0"},
		{"a larger pod", func(f *Facts) { f.Links["plw0"] = 1500 }, Warning, "MTU of pods", "1 links"},
		{"no conflist", func(f *Facts) { f.Conflists = nil }, Broken, "runtime", "no network configuration"},
		{"another comes first", func(f *Facts) { f.Conflists = []string{"05-x.conf", "10-poplin.conflist"} }, Warning, "runtime", "05-x.conf"},
		{"another follows", func(f *Facts) { f.Conflists = append(f.Conflists, "20-y.conflist") }, Warning, "runtime", "20-y.conflist"},
		{"a leak", func(f *Facts) { f.Addresses = [][2]string{{"leak: 10.244.1.5", "delete the pod"}} }, Broken, "addresses", "10.244.1.5"},
		{"no list of attachments", func(f *Facts) { f.AddressesErr = errors.New("no such file") }, Unknown, "addresses", "no such file"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := well()
			tt.harm(&f)
			r := Report{Checks: Judge(f)}
			if r.Worst() != tt.state {
				t.Errorf("worst is %s", r.Worst())
			}
			found := false
			for _, c := range r.Checks {
				if c.State == Well {
					continue
				}
				if c.Name != tt.check || c.State != tt.state || !strings.Contains(c.Found, tt.found) || c.Cure == "" {
					t.Errorf("%+v", c)
				}
				found = true
			}
			if !found {
				t.Error("not found")
			}
		})
	}
}

func TestClocks(t *testing.T) {
	now := time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	list := Clocks([]Report{{Node: "a", Taken: now}, {Node: "b", Taken: now.Add(time.Second)}, {Node: "late", Taken: now.Add(-time.Minute)}, {Node: "silent"}})
	for _, r := range list {
		want := map[string]State{"a": Well, "b": Well, "late": Broken, "silent": Well}[r.Node]
		if r.Worst() != want || (len(r.Checks) == 0) != (r.Node == "silent") {
			t.Errorf("%+v", r)
		}
	}
	if alone := Clocks([]Report{{Node: "a", Taken: now}}); len(alone[0].Checks) > 0 {
		t.Errorf("compared with nobody: %+v", alone)
	}
}
