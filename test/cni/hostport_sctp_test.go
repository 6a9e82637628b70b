package cni_test

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/test/sctp"
)

// TestHostPortSCTP: first packets of associations, from a host, a pod, the node
// and the pod itself; what only passes through the node is left alone.
func TestHostPortSCTP(t *testing.T) {
	n, l := hostPorts(t)
	client := neighbour(t, n, "lan0", client4, client6)
	served := podWith(t, mapping{8080, 80, "sctp", ""})
	plain := pod(t)
	r, rPlain := add(t, n, l, served), add(t, n, l, plain)
	listen := func(in interface{ Do(func()) error }, at netip.Addr) *net.IPConn {
		t.Helper()
		var c *net.IPConn
		var err error
		no(t, in.Do(func() { c, err = sctp.Listen(at) }))
		no(t, err)
		t.Cleanup(func() { c.Close() })
		return c
	}
	from := uint16(40000)
	arrives := func(what string, sender *net.IPConn, to netip.Addr, receiver *net.IPConn, port uint16, sources ...netip.Addr) {
		t.Helper()
		from++
		buf := make([]byte, 128)
		var size int
		var source *net.IPAddr
		err := os.ErrDeadlineExceeded
		// As a client does, which knows that one packet may be lost.
		for range 10 {
			if _, err := sender.WriteToIP(sctp.Init(from, 8080), &net.IPAddr{IP: to.AsSlice()}); err != nil {
				t.Fatal(err)
			}
			no(t, receiver.SetReadDeadline(time.Now().Add(time.Second)))
			size, source, err = receiver.ReadFromIP(buf)
			for err == nil && sctp.From(buf[:size]) != from {
				// One more of what was sent again before.
				size, source, err = receiver.ReadFromIP(buf)
			}
			if err == nil {
				break
			}
		}
		if err != nil {
			t.Fatalf("%s to %s: nothing arrives: %v", what, to, err)
		}
		got, valid := sctp.Port(buf[:size])
		seen, _ := netip.AddrFromSlice(source.IP)
		if got != port || !valid || !slices.Contains(sources, seen.Unmap()) {
			t.Errorf("%s to %s arrives at port %d from %s, checksum right: %v; want port %d from one of %v", what, to, got, seen, valid, port, sources)
		}
	}
	for _, row := range []struct{ node, second, client netip.Addr }{{nodeAddr4, other4, client4}, {nodeAddr6, other6, client6}} {
		inside := listen(served, addrIn(r, row.node))
		outside, another := listen(client, row.client), listen(plain, addrIn(rPlain, row.node))
		for _, to := range []netip.Addr{row.node, row.second} {
			arrives("a host", outside, to, inside, 80, row.client)
			arrives("another pod", another, to, inside, 80, addrIn(rPlain, row.node))
			arrives("the pod itself", inside, to, inside, 80, row.node, row.second)
			arrives("the node", listen(n, to), to, inside, 80, to)
		}
		arrives("through the node", outside, addrIn(rPlain, row.node), another, 8080, row.client)
	}
	no(t, n.Check(l, served))
	no(t, n.Del(l, served))
	no(t, n.Del(l, plain))
}
