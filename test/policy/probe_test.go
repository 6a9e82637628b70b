package policy

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/sctp"
)

// patience is how long no answer must come for silence.
const patience = 200 * time.Millisecond

// ask sends something and returns what became of it. Nothing in the lab
// refuses but a port where nobody listens, so another error is the lab's fault.
func (l *lab) ask(f flow, ipv6 bool) (got string, err error) {
	from, to := at(f.from, ipv6), netip.AddrPortFrom(at(f.to, ipv6), f.port)
	return got, l.homes[f.from].Do(func() error {
		switch f.proto {
		case service.SCTP:
			got, err = l.associate(from, to)
		case icmp:
			got, err = echoed(from, to.Addr())
		default:
			got, err = exchanged(from, to, f.proto)
		}
		return err
	})
}

// verdict is what an error of a socket means.
func verdict(err error) (string, error) {
	var timeout net.Error
	switch {
	case err == nil:
		return yes, nil
	case errors.As(err, &timeout) && timeout.Timeout():
		return no, nil
	case errors.Is(err, syscall.ECONNREFUSED):
		return refused, nil
	}
	return "", err
}

// exchanged sends a byte and waits for it.
func exchanged(from netip.Addr, to netip.AddrPort, proto service.Protocol) (string, error) {
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: from.AsSlice()}}
	if proto == service.UDP {
		d.LocalAddr = &net.UDPAddr{IP: from.AsSlice()}
	}
	conn, err := d.Dial(proto.String(), to.String())
	if err == nil {
		defer conn.Close()
		if tcp, ok := conn.(*net.TCPConn); ok {
			tcp.SetLinger(0)
		}
		conn.SetDeadline(time.Now().Add(patience))
		if _, err = conn.Write([]byte("?")); err == nil {
			_, err = conn.Read(make([]byte, 1))
		}
	}
	return verdict(err)
}

// echoed sends an ICMP echo and waits for the answer.
func echoed(from, to netip.Addr) (string, error) {
	network, request, reply := "ip4:icmp", byte(8), byte(0)
	if to.Is6() {
		network, request, reply = "ip6:ipv6-icmp", 128, 129
	}
	conn, err := net.ListenIP(network, &net.IPAddr{IP: from.AsSlice()})
	if err != nil {
		return "", err
	}
	defer conn.Close()
	id := uint16(rand.Uint32())
	b := binary.BigEndian.AppendUint16([]byte{request, 0, 0, 0}, id)
	b = append(b, 0, 1)
	if to.Is4() { // of the other the kernel sees to it
		binary.BigEndian.PutUint16(b[2:], ^(uint16(request)<<8 + id + 1))
	}
	if _, err := conn.WriteToIP(b, &net.IPAddr{IP: to.AsSlice()}); err != nil {
		return "", err
	}
	conn.SetDeadline(time.Now().Add(patience))
	for buf := make([]byte, 256); ; {
		n, _, err := conn.ReadFromIP(buf)
		if err != nil || n >= 6 && buf[0] == reply && binary.BigEndian.Uint16(buf[4:]) == id {
			return verdict(err)
		}
	}
}

// heard are first packets of SCTP that arrived: from where, and at which port.
type heard struct {
	mu      sync.Mutex
	packets map[[2]netip.AddrPort]bool
	last    uint16
}

// hear takes down what arrives at a place.
func (l *lab) hear(t testing.TB, place string, ipv6 bool) {
	t.Helper()
	var conn *net.IPConn
	if err := l.homes[place].Do(func() (err error) {
		conn, err = sctp.Listen(at(place, ipv6))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	go func() {
		for buf := make([]byte, 256); ; {
			n, from, err := conn.ReadFromIP(buf)
			if err != nil {
				return
			}
			port, valid := sctp.Port(buf[:n])
			src, _ := netip.AddrFromSlice(from.IP)
			if valid {
				l.heard.mu.Lock()
				l.heard.packets[[2]netip.AddrPort{
					netip.AddrPortFrom(src.Unmap(), binary.BigEndian.Uint16(buf)), netip.AddrPortFrom(at(place, ipv6), port),
				}] = true
				l.heard.mu.Unlock()
			}
		}
	}()
}

// associate sends a first packet and waits for it to arrive.
func (l *lab) associate(from netip.Addr, to netip.AddrPort) (string, error) {
	conn, err := sctp.Listen(from)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	l.heard.mu.Lock()
	l.heard.last++
	source := 10000 + l.heard.last%50000
	l.heard.mu.Unlock()
	if _, err := conn.WriteToIP(sctp.Init(source, to.Port()), &net.IPAddr{IP: to.Addr().AsSlice()}); err != nil {
		return "", err
	}
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); time.Sleep(patience / 20) {
		l.heard.mu.Lock()
		arrived := l.heard.packets[[2]netip.AddrPort{netip.AddrPortFrom(from, source), to}]
		l.heard.mu.Unlock()
		if arrived {
			return yes, nil
		}
	}
	return no, nil
}
