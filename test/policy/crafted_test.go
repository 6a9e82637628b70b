package policy

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/await"
)

// flagged are packets of TCP by their flags. No stack would send most of them to
// whom it has no connection with.
var flagged = map[string]byte{
	"none": 0, "FIN": fin, "SYN": syn, "RST": rst, "PSH": psh, "ACK": ack, "SYN+ACK": syn | ack, "RST+ACK": rst | ack,
	"FIN+ACK": fin | ack, "PSH+ACK": psh | ack, "SYN+FIN": syn | fin, "SYN+RST": syn | rst, "all": fin | syn | rst | psh | ack,
}

const (
	fin = 1 << iota
	syn
	rst
	psh
	ack
)

// TestCraftedPackets: a pod may not connect to another, which may connect to it.
// Whatever flags its packets carry, and though they come from the very port that
// the other has a connection to, none gets through but answers of that connection.
// The same packets of a pod that is permitted do.
func TestCraftedPackets(t *testing.T) {
	l := newLab(t)
	l.set(ingress("shop", sel("app", "web"), from(namespace("team", "sales"))), nil)
	l.sync(t)
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", ipv6), func(t *testing.T) {
			heard := l.listenRaw(t, "web", ipv6)
			open, err := l.connected("web", netip.AddrPortFrom(at("db", ipv6), 80))
			if err != nil {
				t.Fatal(err)
			}
			defer open.Close()
			own := open.LocalAddr().(*net.TCPAddr).AddrPort().Port()
			for name, flags := range flagged {
				hostile, friend := rand.Uint32(), rand.Uint32()
				l.sendRaw(t, "db", "web", ipv6, segment{80, 8080, flags, hostile})
				l.sendRaw(t, "ops", "web", ipv6, segment{80, 8080, flags, friend})
				await.Success(t, surely, func() error {
					if !heard.has(friend) {
						return errors.New(name + " of a pod that is permitted does not get through")
					}
					return nil
				})
				if heard.has(hostile) {
					t.Errorf("%s gets through from a pod that may not connect", name)
				}
				// Conntrack takes a SYN for none of the connection's answers.
				again := rand.Uint32()
				l.sendRaw(t, "db", "web", ipv6, segment{80, own, flags &^ rst, again})
				if flags&(syn|ack) == syn {
					time.Sleep(patience / 4)
					if heard.has(again) {
						t.Errorf("%s gets through to the port of a connection that exists", name)
					}
				}
			}
			if got, err := l.reaches("db", "web", service.TCP, 80, ipv6); got || err != nil {
				t.Errorf("after all of that it connects, %v", err)
			}
			if _, err := open.Write([]byte("?")); err != nil {
				t.Fatal(err)
			}
			open.SetReadDeadline(time.Now().Add(surely))
			if _, err := open.Read(make([]byte, 1)); err != nil {
				t.Errorf("the connection that is permitted carries nothing any more: %v", err)
			}
		})
	}
}

// connected is a connection from a place.
func (l *lab) connected(place string, to netip.AddrPort) (c net.Conn, err error) {
	err = l.homes[place].Do(func() error {
		c, err = net.DialTimeout("tcp", to.String(), surely)
		return err
	})
	return c, err
}

// segment is one of TCP, known by its sequence number.
type segment struct {
	from, to uint16
	flags    byte
	sequence uint32
}

// sendRaw sends a segment (RFC 9293, section 3.1).
func (l *lab) sendRaw(t *testing.T, from, to string, ipv6 bool, s segment) {
	t.Helper()
	src, dst := at(from, ipv6), at(to, ipv6)
	b := binary.BigEndian.AppendUint16(nil, s.from)
	b = binary.BigEndian.AppendUint16(b, s.to)
	b = binary.BigEndian.AppendUint32(b, s.sequence)
	b = binary.BigEndian.AppendUint32(b, 1)
	b = append(b, 5<<4, s.flags, 1, 0, 0, 0, 0, 0)
	pseudo := append(append(src.AsSlice(), dst.AsSlice()...), 0, byte(service.TCP), 0, byte(len(b)))
	binary.BigEndian.PutUint16(b[16:], checksum(append(pseudo, b...)))
	if err := l.homes[from].Do(func() error {
		c, err := net.ListenIP(rawTCP(ipv6), &net.IPAddr{IP: src.AsSlice()})
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.WriteToIP(b, &net.IPAddr{IP: dst.AsSlice()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
}

func rawTCP(ipv6 bool) string {
	if ipv6 {
		return "ip6:tcp"
	}
	return "ip4:tcp"
}

// checksum is that of RFC 1071, of an even number of bytes.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// segments are the sequence numbers that arrived at a place.
type segments struct {
	mu   sync.Mutex
	seen map[uint32]bool
}

func (s *segments) has(sequence uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[sequence]
}

func (l *lab) listenRaw(t *testing.T, place string, ipv6 bool) *segments {
	t.Helper()
	var conn *net.IPConn
	if err := l.homes[place].Do(func() (err error) {
		conn, err = net.ListenIP(rawTCP(ipv6), &net.IPAddr{IP: at(place, ipv6).AsSlice()})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &segments{seen: map[uint32]bool{}}
	go func() {
		for buf := make([]byte, 4096); ; {
			n, _, err := conn.ReadFromIP(buf)
			if err != nil {
				return
			}
			if n >= 20 {
				s.mu.Lock()
				s.seen[binary.BigEndian.Uint32(buf[4:])] = true
				s.mu.Unlock()
			}
		}
	}()
	return s
}
