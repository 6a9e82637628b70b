package flow

import (
	"fmt"
	"net"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/sctp"
	"poplin.dev/poplin/test/space"
)

// TestSCTP sends first packets.
func TestSCTP(t *testing.T) {
	l := newLab(t)
	o := serviceOf(func(o *object) {
		o.Ports[0].Protocol = service.SCTP
		for i := range o.slices {
			o.slices[i].Ports[0].Protocol = service.SCTP
		}
	}, "pod1")
	l.table.Set(o.Service, o.slices)
	l.sync(t)
	for _, ipv6 := range []bool{false, true} {
		for i, f := range []flow{
			{"pod2", "vip", 80, "8080 sees pod2"},
			{"client", "node", 30080, "8080 sees node"},
		} {
			t.Run(fmt.Sprint("IPv6 ", ipv6, " ", f.to), func(t *testing.T) {
				inside := listenSCTP(t, l.homes["pod1"], "pod1", ipv6)
				outside := listenSCTP(t, l.homes[f.from], f.from, ipv6)
				init := sctp.Init(uint16(40000+i), f.port)
				if _, err := outside.WriteToIP(init, &net.IPAddr{IP: at(f.to, ipv6).AsSlice()}); err != nil {
					t.Fatal(err)
				}
				inside.SetReadDeadline(time.Now().Add(5 * time.Second))
				buf := make([]byte, 128)
				n, from, err := inside.ReadFromIP(buf)
				if err != nil {
					t.Fatalf("nothing arrives: %v", err)
				}
				port, valid := sctp.Port(buf[:n])
				got := fmt.Sprintf("%d sees %s", port, placeOf(addrOf(from.IP)))
				if got != f.want {
					t.Errorf("%s to %s:%d: %s, want %s", f.from, f.to, f.port, got, f.want)
				}
				if !valid {
					t.Errorf("the checksum is wrong after translation")
				}
			})
		}
	}
}

func listenSCTP(t *testing.T, s *space.Space, place string, ipv6 bool) *net.IPConn {
	t.Helper()
	var c *net.IPConn
	if err := s.Do(func() (err error) {
		c, err = sctp.Listen(at(place, ipv6))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}
