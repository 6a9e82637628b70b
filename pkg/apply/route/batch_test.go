package route

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// with is a program with so many peers, of two families.
func with(peers int) program.Net {
	n := program.Net{Link: program.VXLAN{Name: "poplin-vx", VNI: 1, Port: 8472, Local: netip.MustParseAddr("192.0.2.1"), MTU: 1450, MAC: cluster.MACOf("self")}}
	for i := range peers {
		hi, lo := byte(i>>8), byte(i)
		mac := cluster.MACOf(fmt.Sprint(i))
		n.FDB = append(n.FDB, program.FDB{MAC: mac, Dst: netip.AddrFrom4([4]byte{198, 18, hi, lo})})
		for _, p := range []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 100 + hi, lo, 0}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: hi, 7: lo}), 64),
		} {
			n.Neighs = append(n.Neighs, program.Neigh{Addr: p.Addr(), MAC: mac})
			n.Routes = append(n.Routes, program.Route{Dst: p, Via: p.Addr(), Dev: n.Link.Name})
		}
	}
	return n
}

// TestOneNodeIsOneMessage: a node that joins a thousand, or leaves them, costs
// one message to the kernel; a request that fails costs no other.
func TestOneNodeIsOneMessage(t *testing.T) {
	need.Link(t, "vxlan")
	s := space.New(t)
	var a *Applier
	if err := s.Do(func() (err error) {
		a, err = Open(Config{Link: "poplin-vx"})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	set := func(n program.Net) (res diff.Result, err error) {
		if errSpace := s.Do(func() error { res, err = a.Set(t.Context(), n); return nil }); errSpace != nil {
			t.Fatal(errSpace)
		}
		return res, err
	}
	if _, err := set(with(1000)); err != nil {
		t.Fatal(err)
	}
	if want := 5000/perMessage + 1; a.batch.messages != want {
		t.Errorf("a thousand nodes cost %d messages, want %d", a.batch.messages, want)
	}
	for _, tt := range []struct {
		peers int
		want  diff.Result
	}{{1001, diff.Result{Added: 5}}, {1000, diff.Result{Removed: 5}}} {
		before := a.batch.messages
		if res, err := set(with(tt.peers)); err != nil || res != tt.want || a.batch.messages != before+1 {
			t.Errorf("one node: %+v, %v, %d messages, want %+v in one", res, err, a.batch.messages-before, tt.want)
		}
	}

	// Somebody else's route is in the way of one of three.
	other := with(1002).Routes[2*1001].Dst
	if err := s.NL.RouteAdd(&netlink.Route{Dst: space.IPNet(other), LinkIndex: s.Link(t, "lo").Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	res, err := set(with(1003))
	if want := (diff.Result{Added: 14, Failed: 1}); res != want || err == nil || !strings.Contains(err.Error(), other.String()) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("%+v, %v, want %+v", res, err, want)
	}
	if err := s.NL.RouteDel(&netlink.Route{Dst: space.IPNet(other), LinkIndex: s.Link(t, "lo").Attrs().Index}); err != nil {
		t.Fatal(err)
	}
	if res, err := set(with(1003)); err != nil || res != (diff.Result{Added: 1}) {
		t.Errorf("after it is gone: %+v, %v", res, err)
	}
	// All of many fail at once, and each is told.
	if err := s.NL.LinkSetDown(s.Link(t, "poplin-vx")); err != nil {
		t.Fatal(err)
	}
	routes := with(1400).Routes[2006:]
	if err := s.Do(func() error {
		for _, r := range routes {
			k := routeKey{r.Dst, 0}
			a.addRoute(k, routeVia{via: r.Via, dev: byOverlay}, func(err error) {
				if err == nil {
					t.Errorf("%s was added by a device that is down", k)
				}
			})
		}
		a.batch.flush()
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
