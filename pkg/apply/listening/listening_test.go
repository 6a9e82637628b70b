package listening

import (
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

func TestSockets(t *testing.T) {
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	udp, err := net.ListenPacket("udp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	client, err := net.Dial("tcp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	list, err := Sockets()
	if err != nil {
		t.Fatal(err)
	}
	if want := (Socket{service.TCP, netip.MustParseAddrPort(tcp.Addr().String()), 1}); !slices.Contains(list, want) {
		t.Errorf("no %v in %v", want, list)
	}
	port := netip.MustParseAddrPort(udp.LocalAddr().String()).Port()
	if !slices.ContainsFunc(list, func(s Socket) bool {
		return s.Proto == service.UDP && s.At.Port() == port && s.At.Addr().IsUnspecified()
	}) {
		t.Errorf("no UDP port %d in %v", port, list)
	}
	if own := netip.MustParseAddrPort(client.LocalAddr().String()); slices.ContainsFunc(list, func(s Socket) bool { return s.At == own }) {
		t.Errorf("a client's %v is listed", own)
	}
}

// TestStuck: a connection that is accepted in time does not count.
func TestStuck(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	waiting := func(while time.Duration) uint32 {
		t.Helper()
		list, err := Stuck(while)
		at := netip.MustParseAddrPort(l.Addr().String())
		i := slices.IndexFunc(list, func(s Socket) bool { return s.At == at })
		if err != nil || i < 0 {
			t.Fatalf("%v is not listed: %v, %v", at, list, err)
		}
		return list[i].Waiting
	}
	if n := waiting(10 * time.Millisecond); n != 1 {
		t.Errorf("%d connections wait, want 1", n)
	}
	go func() {
		time.Sleep(50 * time.Millisecond)
		if conn, err := l.Accept(); err == nil {
			_ = conn.Close()
		}
	}()
	if n := waiting(2 * time.Second); n != 0 {
		t.Errorf("%d connections wait that were accepted", n)
	}
}
