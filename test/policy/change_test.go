package policy

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// TestAChangeHoldsForConnectionsThatExist: a connection that a policy comes to
// forbid carries nothing any more, whichever end sends, and goes on when it is
// permitted again. Another one beside it never notices.
func TestAChangeHoldsForConnectionsThatExist(t *testing.T) {
	l := newLab(t)
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprintf("IPv6 %v", ipv6), func(t *testing.T) {
			denied, kept := l.stream(t, "db", "web", ipv6), l.stream(t, "ops", "web", ipv6)
			for _, harm := range []struct {
				name     string
				policies []policy.NetworkPolicy
			}{
				{"ingress", ingress("shop", sel("app", "web"), from(namespace("team", "sales")))},
				{"egress", egress("bank", all, from(namespace("team", "money")))},
			} {
				l.set(harm.policies, nil)
				l.sync(t)
				for _, sender := range []int{0, 1} {
					if denied.carries(sender) {
						t.Errorf("%s denied: end %d still gets through", harm.name, sender)
					}
					if !kept.carries(sender) {
						t.Errorf("%s denied: end %d of another connection does not get through", harm.name, sender)
					}
				}
				l.set(nil, nil)
				l.sync(t)
				for _, sender := range []int{0, 1} {
					if !denied.within(sender, 10*time.Second) {
						t.Errorf("%s permitted again: end %d does not get through", harm.name, sender)
					}
				}
			}
		})
	}
}

// TestKeptConnectionsGoOn: where the node is told to keep connections, one that a
// policy comes to forbid carries on, both ways, and no new one is made.
func TestKeptConnectionsGoOn(t *testing.T) {
	for _, conf := range []applypermit.Config{{Keep: true}, {Keep: true, Plain: true, Unlabelled: true}} {
		t.Run(fmt.Sprintf("unlabelled %v", conf.Unlabelled), func(t *testing.T) {
			l := openLab(t, conf)
			for _, ipv6 := range []bool{false, true} {
				kept := l.stream(t, "db", "web", ipv6)
				for _, forbidden := range [][]policy.NetworkPolicy{ingress("shop", sel("app", "web")), egress("bank", all)} {
					l.set(forbidden, nil)
					l.sync(t)
					for _, sender := range []int{0, 1} {
						if !kept.carries(sender) {
							t.Errorf("IPv6 %v, %s: end %d does not get through", ipv6, forbidden[0].Name, sender)
						}
					}
					if got, err := l.reaches("db", "web", service.TCP, 80, ipv6); got || err != nil {
						t.Errorf("IPv6 %v, %s: a new connection is made, %v", ipv6, forbidden[0].Name, err)
					}
				}
				l.set(nil, nil)
				l.sync(t)
			}
		})
	}
}

// stream is both ends of a connection, client and server.
type stream struct {
	ends [2]net.Conn
	sent byte
}

func (l *lab) stream(t *testing.T, client, server string, ipv6 bool) *stream {
	t.Helper()
	var listener net.Listener
	s := &stream{}
	if err := l.homes[server].Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(at(server, ipv6), 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if err := l.homes[client].Do(func() (err error) {
		s.ends[0], err = net.Dial("tcp", listener.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	var err error
	if s.ends[1], err = listener.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.ends[0].Close(); s.ends[1].Close() })
	if !s.carries(0) || !s.carries(1) {
		t.Fatalf("%s>%s carries nothing while nothing forbids it", client, server)
	}
	return s
}

// carries reports whether a byte from one end arrives at the other soon.
func (s *stream) carries(from int) bool { return s.within(from, 3*patience) }

// within waits longer: what was lost is sent again after a while only.
func (s *stream) within(from int, limit time.Duration) bool {
	s.sent++
	if _, err := s.ends[from].Write([]byte{s.sent}); err != nil {
		return false
	}
	to := s.ends[1-from]
	to.SetReadDeadline(time.Now().Add(limit))
	defer to.SetReadDeadline(time.Time{})
	for buf := make([]byte, 1); ; {
		if _, err := to.Read(buf); err != nil {
			return false
		}
		if buf[0] == s.sent { // and not what was lost before
			return true
		}
	}
}
