package load_test

import (
	"net/netip"
	"testing"
	"time"

	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// What works loses nothing, and what is cut for a while loses about as many
// packets as were sent meanwhile, and says when.
func TestLoadCounts(t *testing.T) {
	need.Root(t)
	need.Link(t, "veth")
	a, b := space.New(t), space.New(t)
	space.Veth(t, a, "eth0", 0, b, "eth0")
	a.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.1/24"))
	b.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.2/24"))
	server := load.Listen(t, b.Do, netip.MustParseAddrPort("192.0.2.2:0"))
	l := load.Start(t, a.Do, server.Addr, server)
	l.After(200)
	l.Stop().Lossless(t)

	l = load.Start(t, a.Do, server.Addr, server)
	l.After(100)
	if err := b.NL.LinkSetDown(b.Link(t, "eth0")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	b.Up(t, "eth0")
	time.Sleep(1500 * time.Millisecond) // neighbour discovery and retransmission
	bad := l.Stop()
	t.Log(bad)
	if len(bad.LostThere) < 100 || bad.Lost() >= bad.Sent || bad.Silence < 250*time.Millisecond {
		t.Errorf("a cut of 300 ms was counted as %v", bad)
	}
	if len(bad.Failed) > 0 {
		t.Errorf("TCP survives a cut: %v", bad.Failed)
	}
	if first := bad.LostThere[0]; first < 50*time.Millisecond {
		t.Errorf("the first packet was lost %v after the start", first)
	}
}

// What knocks is heard while the way is open, and only then.
func TestKnocksAreHeard(t *testing.T) {
	need.Root(t)
	need.Link(t, "veth")
	a, b := space.New(t), space.New(t)
	space.Veth(t, a, "eth0", 0, b, "eth0")
	a.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.1/24"))
	b.AddAddr(t, "eth0", netip.MustParsePrefix("192.0.2.2/24"))
	k := load.Knock(t, a.Do, load.Listen(t, b.Do, netip.MustParseAddrPort("192.0.2.2:0")))
	k.Through(t)
	if err := b.NL.LinkSetDown(b.Link(t, "eth0")); err != nil {
		t.Fatal(err)
	}
	k.Silent(t)
	before := k.Heard()
	time.Sleep(300 * time.Millisecond)
	if now := k.Heard(); now != before {
		t.Errorf("heard through a cut: %+v, then %+v", before, now)
	}
	b.Up(t, "eth0")
	k.Through(t)
	if sent, heard := k.Sent(), k.Heard().Packets; heard >= sent {
		t.Errorf("%d packets heard of %d, in spite of a cut", heard, sent)
	}
}
