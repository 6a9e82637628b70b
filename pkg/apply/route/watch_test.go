package route

import (
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// TestOwnWritesAreNoNews: nodes that join and leave are no reason to read the
// kernel again, and what anybody else does to their entries is.
func TestOwnWritesAreNoNews(t *testing.T) {
	need.Link(t, "vxlan")
	s := space.New(t)
	var (
		a      *Applier
		events *Events
	)
	if err := s.Do(func() (err error) {
		if a, err = Open(Config{Link: "poplin-vx"}); err == nil {
			events, err = a.Subscribe()
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	news := make(chan struct{}, 1)
	go events.Run(t.Context(), func() {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	set := func(peers int) {
		t.Helper()
		if err := s.Do(func() error { _, err := a.Set(t.Context(), with(peers)); return err }); err != nil {
			t.Fatal(err)
		}
	}
	quiet := func() bool {
		select {
		case <-news:
			return false
		case <-time.After(300 * time.Millisecond):
			return true
		}
	}
	set(10)
	for !quiet() { // the device is new
	}
	for _, peers := range []int{20, 5, 10} {
		if set(peers); !quiet() {
			t.Errorf("%d peers: our own writes are news", peers)
		}
	}
	device := s.Link(t, "poplin-vx")
	entry := func(family, peer int) *netlink.Neigh {
		p := with(10)
		n := &netlink.Neigh{LinkIndex: device.Attrs().Index, State: netlink.NUD_PERMANENT}
		if family == unix.AF_BRIDGE {
			n.Family, n.Flags = family, netlink.NTF_SELF
			n.IP, n.HardwareAddr = p.FDB[peer].Dst.AsSlice(), p.FDB[peer].MAC[:]
		} else {
			n.IP, n.HardwareAddr = p.Neighs[peer].Addr.AsSlice(), p.Neighs[peer].MAC[:]
		}
		return n
	}
	elsewhere := func(n *netlink.Neigh) *netlink.Neigh {
		n.HardwareAddr[5]++
		return n
	}
	for _, harm := range []struct {
		name string
		do   func() error
	}{
		{"a forwarding entry is gone", func() error { return s.NL.NeighDel(entry(unix.AF_BRIDGE, 1)) }},
		{"a forwarding entry is too much", func() error { return s.NL.NeighSet(elsewhere(entry(unix.AF_BRIDGE, 2))) }},
		{"a neighbour is gone", func() error { return s.NL.NeighDel(entry(0, 3)) }},
		{"a neighbour is another", func() error { return s.NL.NeighSet(elsewhere(entry(0, 4))) }},
		{"a route is gone", func() error {
			return s.NL.RouteDel(&netlink.Route{Dst: ipNet(with(10).Routes[5].Dst), Protocol: 157})
		}},
	} {
		if err := harm.do(); err != nil {
			t.Fatalf("%s: %v", harm.name, err)
		}
		select {
		case <-news:
		case <-time.After(10 * time.Second):
			t.Errorf("%s, and it is no news", harm.name)
		}
		a.Forget()
		set(10)
		for !quiet() { // what else was heard of the harm
		}
	}
}
