package flow

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"net"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/space"
)

// TestSCTP sends INIT chunks by hand (RFC 9260, section 3.3.2): the kernel
// may translate SCTP without having sockets for it.
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
				init := initChunk(uint16(40000+i), f.port)
				if _, err := outside.WriteToIP(init, &net.IPAddr{IP: at(f.to, ipv6).AsSlice()}); err != nil {
					t.Fatal(err)
				}
				inside.SetReadDeadline(time.Now().Add(5 * time.Second))
				buf := make([]byte, 128)
				n, from, err := inside.ReadFromIP(buf)
				if err != nil {
					t.Fatalf("nothing arrives: %v", err)
				}
				got := fmt.Sprintf("%d sees %s", binary.BigEndian.Uint16(buf[2:]), placeOf(addrOf(from.IP)))
				if got != f.want {
					t.Errorf("%s to %s:%d: %s, want %s", f.from, f.to, f.port, got, f.want)
				}
				sum := binary.LittleEndian.Uint32(buf[8:])
				clear(buf[8:12])
				if crc32.Checksum(buf[:n], crc32.MakeTable(crc32.Castagnoli)) != sum {
					t.Errorf("the checksum is wrong after translation")
				}
			})
		}
	}
}

func listenSCTP(t *testing.T, s *space.Space, place string, ipv6 bool) *net.IPConn {
	t.Helper()
	network := "ip4:132"
	if ipv6 {
		network = "ip6:132"
	}
	var c *net.IPConn
	if err := s.Do(func() (err error) {
		c, err = net.ListenIP(network, &net.IPAddr{IP: at(place, ipv6).AsSlice()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func initChunk(from, to uint16) []byte {
	b := binary.BigEndian.AppendUint16(nil, from)
	b = binary.BigEndian.AppendUint16(b, to)
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)             // verification tag 0, checksum
	b = append(b, 1, 0, 0, 20)                        // INIT, 20 bytes
	b = append(b, 1, 2, 3, 4, 0, 1, 0, 0, 0, 1, 0, 1) // tag, window, streams
	b = append(b, 0, 0, 0, 1)                         // first sequence number
	binary.LittleEndian.PutUint32(b[8:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return b
}
