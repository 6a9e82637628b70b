package listening

import (
	"net"
	"net/netip"
	"slices"
	"testing"

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
	if want := (Socket{service.TCP, netip.MustParseAddrPort(tcp.Addr().String())}); !slices.Contains(list, want) {
		t.Errorf("no %v in %v", want, list)
	}
	port := netip.MustParseAddrPort(udp.LocalAddr().String()).Port()
	if !slices.ContainsFunc(list, func(s Socket) bool {
		return s.Proto == service.UDP && s.At.Port() == port && s.At.Addr().IsUnspecified()
	}) {
		t.Errorf("no UDP port %d in %v", port, list)
	}
	if own := netip.MustParseAddrPort(client.LocalAddr().String()); slices.Contains(list, Socket{service.TCP, own}) {
		t.Errorf("a client's %v is listed", own)
	}
}
