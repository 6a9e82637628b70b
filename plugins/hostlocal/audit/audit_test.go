package audit

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/plugins/hostlocal/allocator"
	"poplin.dev/poplin/plugins/hostlocal/store"
)

func set(t *testing.T, subnet string) allocator.Set {
	t.Helper()
	r, err := allocator.NewRange(netip.MustParsePrefix(subnet), netip.Addr{}, netip.Addr{}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return allocator.Set{r}
}

func addrs(list ...string) (found []netip.Addr) {
	for _, s := range list {
		found = append(found, netip.MustParseAddr(s))
	}
	return found
}

func held(id string, list ...string) store.Reservation {
	return store.Reservation{Owner: store.Owner{ContainerID: id, IfName: "eth0"}, Addrs: addrs(list...), Ours: true}
}

func linkOf(id, _ string) string { return "plw-" + id }

func link(id, pod string, list ...string) Link {
	return Link{Name: linkOf(id, ""), Alias: "pods:" + pod, Addrs: addrs(list...)}
}

func TestRun(t *testing.T) {
	foreign := held("bridged", "10.1.0.9")
	foreign.Ours = false
	running := held("starting", "10.1.0.10")
	running.Busy = true
	for name, row := range map[string]struct {
		files    []store.Reservation
		links    []Link
		runtime  []string
		unsure   bool
		problems []string // kind and a part of the text
		states   string
	}{
		"nothing": {},
		"well": {
			[]store.Reservation{held("web", "10.1.0.2", "fd00::2"), foreign, running},
			[]Link{link("web", "default/web", "10.1.0.2", "fd00::2")}, []string{"web"}, false, nil,
			"10.1.0.2=used:default/web 10.1.0.9=foreign: 10.1.0.10=reserved: fd00::2=used:default/web",
		},
		"orphan": {
			[]store.Reservation{held("web", "10.1.0.2", "fd00::2")}, nil, []string{"db"}, false,
			[]string{"leak: [10.1.0.2 fd00::2] of container web: neither its link nor the runtime"},
			"10.1.0.2=reserved: fd00::2=reserved:",
		},
		"nobody knows": {
			[]store.Reservation{held("web", "10.1.0.2")}, nil, nil, true, nil, "10.1.0.2=reserved:",
		},
		"link removed": {
			[]store.Reservation{held("web", "10.1.0.2")}, nil, []string{"web"}, false,
			[]string{"leak: [10.1.0.2] of container web: its link is gone"}, "10.1.0.2=reserved:",
		},
		"runtime lost it": {
			[]store.Reservation{held("web", "10.1.0.2")}, []Link{link("web", "default/web", "10.1.0.2")}, []string{"db"}, false,
			[]string{"leak: [10.1.0.2] of pod default/web: the runtime does not know"}, "10.1.0.2=used:default/web",
		},
		"reservation lost": {
			nil, []Link{link("web", "default/web", "10.1.0.2")}, []string{"web"}, false,
			[]string{"conflict: 10.1.0.2 is used by default/web (link plw-web) and not reserved"}, "",
		},
		"two have it": {
			[]store.Reservation{held("web", "10.1.0.2"), held("db", "10.1.0.3")},
			[]Link{link("web", "default/web", "10.1.0.2"), link("db", "default/db", "10.1.0.2", "10.1.0.3")}, []string{"web", "db"}, false,
			[]string{"conflict: 10.1.0.2 is reserved for container web and used by default/db"}, "10.1.0.2=used:default/web 10.1.0.3=used:default/db",
		},
		"range changed": {
			[]store.Reservation{held("web", "10.9.0.2")}, []Link{link("web", "default/web", "10.9.0.2")}, []string{"web"}, false,
			[]string{"outside: 10.9.0.2 of pod default/web"}, "10.9.0.2=used:default/web",
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := Facts{
				Network: "pods", Sets: []allocator.Set{set(t, "10.1.0.0/24"), set(t, "fd00::/64")},
				Files: store.Survey{Reservations: row.files}, Links: row.links, Sure: !row.unsure, LinkOf: linkOf,
			}
			for _, id := range row.runtime {
				f.Attachments = append(f.Attachments, Attachment{ContainerID: id, IfName: "eth0"})
			}
			r := Run(f)
			var states []string
			for _, a := range r.Addresses {
				states = append(states, fmt.Sprintf("%s=%s:%s", a.Address, a.State, a.Pod))
			}
			if got := strings.Join(states, " "); got != row.states {
				t.Errorf("addresses %s, want %s", got, row.states)
			}
			matches := func(p Problem, want string) bool { return strings.HasPrefix(p.Kind+": "+p.What, want) }
			if !slices.EqualFunc(r.Problems, row.problems, matches) {
				t.Errorf("problems %+v, want %q", r.Problems, row.problems)
			}
			if (len(r.Remarks) > 0) != row.unsure {
				t.Errorf("remarks %q", r.Remarks)
			}
		})
	}
}

func TestRestingAndSpoilt(t *testing.T) {
	r := Run(Facts{LinkOf: linkOf, Sure: true, Sets: []allocator.Set{set(t, "10.1.0.0/24")}, Files: store.Survey{
		Resting: map[netip.Addr]time.Duration{netip.MustParseAddr("10.1.0.4"): 12 * time.Second},
		Spoilt:  addrs("10.1.0.5"),
	}})
	if len(r.Addresses) != 1 || r.Addresses[0].State != Resting || r.Addresses[0].Seconds != 12 {
		t.Errorf("%+v", r.Addresses)
	}
	if len(r.Problems) != 1 || r.Problems[0].Kind != Spoilt || !strings.Contains(r.Problems[0].What, "10.1.0.5") {
		t.Errorf("%+v", r.Problems)
	}
	if got := r.Ranges[0]; got.Size != "253" || got.Free != "253" || got.Taken != 0 {
		t.Errorf("%+v", got)
	}
}

// TestSizes against counting.
func TestSizes(t *testing.T) {
	a := netip.MustParseAddr
	for _, row := range []struct{ subnet, first, last, gateway string }{
		{"10.1.0.0/24", "", "", ""}, {"10.1.0.0/24", "10.1.0.0", "10.1.0.255", ""}, {"10.1.0.0/29", "", "", "10.1.0.7"},
		{"10.1.0.0/29", "10.1.0.3", "10.1.0.5", "10.1.0.4"}, {"fd00::/120", "", "", ""}, {"fd00::/120", "fd00::", "fd00::9", "fd00::"},
	} {
		var given [3]netip.Addr
		for i, s := range []string{row.first, row.last, row.gateway} {
			if s != "" {
				given[i] = a(s)
			}
		}
		r, err := allocator.NewRange(netip.MustParsePrefix(row.subnet), given[0], given[1], given[2])
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for range (allocator.Set{r}).After(netip.Addr{}) {
			n++
		}
		if got := sizeOf(r).Int64(); got != int64(n) {
			t.Errorf("%+v has %d addresses, not %d", row, n, got)
		}
	}
	if got := sizeOf(set(t, "fd00::/64")[0]).String(); got != "18446744073709551614" {
		t.Errorf("a /64 has %s", got)
	}
}
