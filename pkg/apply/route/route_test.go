package route

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// What the applier does to a kernel is tested in test/netns, with packets.

func TestTargetRefusesContradictions(t *testing.T) {
	ip, dst := netip.MustParseAddr("10.244.2.0"), netip.MustParsePrefix("10.244.2.0/24")
	a, b := cluster.MACOf("a"), cluster.MACOf("b")
	link := program.VXLAN{Name: "poplin-vx"}
	route := program.Route{Dst: dst, Via: ip, Dev: link.Name}
	for _, tt := range []struct {
		name string
		net  program.Net
		want string // "" accepts
	}{
		{"twice the same", program.Net{Neighs: []program.Neigh{{Addr: ip, MAC: a}, {Addr: ip, MAC: a}}, Routes: []program.Route{route, route}}, ""},
		{"neighbour", program.Net{Neighs: []program.Neigh{{Addr: ip, MAC: a}, {Addr: ip, MAC: b}}}, "neighbour 10.244.2.0 has two MAC addresses"},
		{"forwarding entry", program.Net{FDB: []program.FDB{{MAC: a, Dst: ip}, {MAC: a, Dst: ip.Next()}}}, "has two destinations"},
		{"route", program.Net{Routes: []program.Route{route, {Dst: dst}}}, "route 10.244.2.0/24 has two next hops"},
		{"another metric", program.Net{Routes: []program.Route{route, {Dst: dst, Metric: 1}}}, ""},
		{"IPv6 has no metric 0", program.Net{Routes: []program.Route{
			{Dst: netip.MustParsePrefix("fd00::/64"), Via: ip, Dev: link.Name},
			{Dst: netip.MustParsePrefix("fd00::/64"), Metric: 1024}}}, "two next hops"},
		{"other device", program.Net{Routes: []program.Route{{Dst: dst, Dev: "eth0"}}}, "its device has no index"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.net.Link = link
			_, err := targetOf(tt.net)
			if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
}

func TestWhole(t *testing.T) {
	broken := errors.New("broken")
	for _, tt := range []struct {
		name    string
		results []error
		want    error
	}{
		{"at once", []error{nil}, nil},
		{"interrupted", []error{netlink.ErrDumpInterrupted, netlink.ErrDumpInterrupted, nil}, nil},
		{"broken", []error{netlink.ErrDumpInterrupted, broken}, broken},
	} {
		t.Run(tt.name, func(t *testing.T) {
			calls := 0
			items, err := whole(func() ([]int, error) {
				calls++
				return []int{calls}, tt.results[calls-1]
			})
			if !errors.Is(err, tt.want) || calls != len(tt.results) {
				t.Errorf("%v after %d calls", err, calls)
			}
			if err == nil && items[0] != calls {
				t.Errorf("got the list of call %d of %d", items[0], calls)
			}
		})
	}
}
