package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/program/permit"
)

// channel is two ends that exchange single datagrams, so that one end alone can
// be heard, or can be gone.
type channel struct{ client, server *net.UDPConn }

// quiet is a port at which nothing but the server of a channel listens.
const quiet = 7

func (l *lab) channel(client, server string, ipv6 bool) (c channel, err error) {
	to := netip.AddrPortFrom(at(server, ipv6), quiet)
	if c.client, err = l.dial(client, netip.AddrPortFrom(at(client, ipv6), 0), to); err != nil {
		return c, err
	}
	if c.server, err = l.dial(server, to, c.client.LocalAddr().(*net.UDPAddr).AddrPort()); err != nil {
		c.client.Close()
	}
	return c, err
}

func (l *lab) dial(place string, from, to netip.AddrPort) (conn *net.UDPConn, err error) {
	err = l.homes[place].Do(func() (err error) {
		conn, err = net.DialUDP("udp", net.UDPAddrFromAddrPort(from), net.UDPAddrFromAddrPort(to))
		return err
	})
	return conn, err
}

func (c channel) close() { c.client.Close(); c.server.Close() }

// surely is how long something that must arrive may take.
const surely = 15 * patience

// sends reports whether what one end sends comes out at the other in time.
func sends(from, to *net.UDPConn, limit time.Duration) bool {
	if _, err := from.Write([]byte("?")); err != nil {
		return false
	}
	to.SetReadDeadline(time.Now().Add(limit))
	_, err := to.Read(make([]byte, 1))
	return err == nil
}

// channels are some, by what they are between.
type channels map[string]channel

// open makes a channel from db to web and one from web to db, in both families.
func (l *lab) open() (channels, error) {
	list := channels{}
	for _, ends := range [][2]string{{"db", "web"}, {"web", "db"}} {
		for _, ipv6 := range []bool{false, true} {
			c, err := l.channel(ends[0], ends[1], ipv6)
			if err != nil {
				list.close()
				return nil, err
			}
			list[fmt.Sprintf("%s>%s, IPv6 %v", ends[0], ends[1], ipv6)] = c
		}
	}
	return list, nil
}

func (list channels) close() {
	for _, c := range list {
		c.close()
	}
}

// each does something with all of them at once, closes them, and returns what
// is wrong.
func (list channels) each(do func(c channel) error) error {
	defer list.close()
	var wg sync.WaitGroup
	wrong := make(chan error, len(list))
	for name, c := range list {
		wg.Go(func() {
			if err := do(c); err != nil {
				wrong <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	wg.Wait()
	close(wrong)
	var all error
	for err := range wrong {
		all = errors.Join(all, err)
	}
	return all
}

// TestAServerAloneSends: what a server sends in a connection that is forbidden by
// now does not arrive, though the client is silent; nor does what the client sends.
func TestAServerAloneSends(t *testing.T) {
	if wrong := newLab(t).serverAlone(t); wrong != "" {
		t.Error(wrong)
	}
}

// serverAlone has web isolated by a policy, and by a program that says nothing
// else of it, as no compiler would: it is closed all the same.
func (l *lab) serverAlone(t *testing.T) string {
	t.Helper()
	bare := permit.New()
	for _, ipv6 := range []bool{false, true} {
		bare.Senders[at("web", ipv6)], bare.Receivers[at("web", ipv6)] = struct{}{}, struct{}{}
	}
	for _, forbid := range []func(){
		func() { l.hold(t, l.workers[0], bare) },
		func() {
			l.set([]policy.NetworkPolicy{np("shop", "x", sel("app", "web"), rules(), rules())}, nil)
			l.sync(t)
		},
	} {
		l.set(nil, nil)
		l.sync(t)
		if wrong := l.forbidden(forbid); wrong != nil {
			return wrong.Error()
		}
		l.hold(t, l.workers[0], l.workers[0].program)
	}
	return ""
}

// forbidden opens channels, forbids them, and has the server send first.
func (l *lab) forbidden(forbid func()) error {
	var opened sync.WaitGroup
	told, result := make(chan struct{}), make(chan error, 1)
	list, err := l.open()
	if err != nil {
		return err
	}
	opened.Add(len(list))
	go func() {
		result <- list.each(func(c channel) error {
			open := sends(c.client, c.server, surely) && sends(c.server, c.client, surely)
			opened.Done()
			<-told
			switch {
			case !open:
				return errors.New("nothing gets through while nothing forbids it")
			case sends(c.server, c.client, patience):
				return errors.New("the server still gets through")
			case sends(c.client, c.server, patience):
				return errors.New("the client still gets through")
			}
			return nil
		})
	}()
	opened.Wait()
	forbid()
	close(told)
	return <-result
}

// TestErrorsOfClients: a client that is gone says so to the server, though its
// policies permit no more than the one port.
func TestErrorsOfClients(t *testing.T) {
	if wrong := newLab(t).clientsRefuse(t); wrong != "" {
		t.Error(wrong)
	}
}

func (l *lab) clientsRefuse(t *testing.T) string {
	t.Helper()
	one := rules(on(anyone, udp(quiet)))
	l.set([]policy.NetworkPolicy{np("shop", "x", sel("app", "web"), one, one)}, nil)
	l.sync(t)
	list, err := l.open()
	if err != nil {
		t.Fatal(err)
	}
	if err := list.each(func(c channel) error {
		if !sends(c.client, c.server, surely) {
			return errors.New("what is permitted does not get through")
		}
		c.client.Close()
		if _, err := c.server.Write([]byte("?")); err != nil {
			return err
		}
		c.server.SetReadDeadline(time.Now().Add(surely))
		if _, err := c.server.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("the server does not hear that the client is gone: %v", err)
		}
		return nil
	}); err != nil {
		return err.Error()
	}
	return ""
}

// TestPacketsDoNotChooseTheirClass: the type of service of an IPv4 packet, from
// which Linux derives a priority, says nothing about who sent it.
func TestPacketsDoNotChooseTheirClass(t *testing.T) {
	if wrong := newLab(t).choosesClass(t); wrong != "" {
		t.Error(wrong)
	}
}

// choosesClass has somebody in no class, to whom everything is permitted, use
// every priority that a forbidden class has as its number, at either end.
func (l *lab) choosesClass(t *testing.T) string {
	t.Helper()
	w, pod := l.workers[0], at("web", false)
	p := permit.New()
	p.Senders[pod], p.Receivers[pod] = struct{}{}, struct{}{}
	for class := range permit.Class(16) {
		ports := permit.Nothing
		if class == 0 {
			ports = permit.Everything
		}
		p.Egress[permit.Pair{Pod: pod, Class: class}], p.Ingress[permit.Pair{Pod: pod, Class: class}] = ports, ports
	}
	l.hold(t, w, p)
	defer l.hold(t, w, w.program)
	for _, ends := range [][2]string{{"host", "web"}, {"web", "host"}} {
		c, err := l.channel(ends[0], ends[1], false)
		if err != nil {
			t.Fatal(err)
		}
		defer c.close()
		for _, tos := range []int{0, 0x08, 0x10, 0x18} {
			for i, end := range []*net.UDPConn{c.client, c.server} {
				other := []*net.UDPConn{c.server, c.client}[i]
				if err := setTOS(end, tos); err != nil {
					t.Fatal(err)
				}
				if !sends(end, other, surely) {
					return fmt.Sprintf("%s>%s: with type of service %#x end %d does not get through", ends[0], ends[1], tos, i)
				}
			}
		}
	}
	return ""
}

func setTOS(conn *net.UDPConn, tos int) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_TOS, tos) })
	return errors.Join(err, failed)
}
