package policy

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	daemon "poplin.dev/poplin/daemon/policy"
	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/test/enforce"
	"poplin.dev/poplin/test/space"
)

// TestWhatBeganInAGapGoesOn: while a node has no rules it tracks no connections.
// When somebody's rules are back before the policies', connection tracking meets
// the connections of that time in the middle, and some by an answer: it takes the
// server for the client. What policies permit goes on all the same when they are
// back, what they do not permit ends; also where its beginning was seen and the
// way back is permitted.
func TestWhatBeganInAGapGoesOn(t *testing.T) {
	l := openLab(t, applypermit.Config{Plain: true})
	node := l.workers[0].space
	nft := func(args ...string) {
		t.Helper()
		if err := node.Do(func() error { space.Nft(t, args...); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	nft("flush", "ruleset")
	var kept, ended []*stream
	for _, ipv6 := range []bool{false, true} {
		kept = append(kept, l.stream(t, "db", "web", ipv6), l.datagrams(t, "db", "web", ipv6))
		ended = append(ended, l.stream(t, "api", "web", ipv6), l.datagrams(t, "api", "web", ipv6))
	}
	nft("add", "table", "inet", "others")
	nft("add", "chain", "inet", "others", "forward", "{ type filter hook forward priority 0; }")
	nft("add", "rule", "inet", "others", "forward", "ct", "state", "new", "counter")
	for _, s := range append(kept, ended...) {
		if !s.carries(1) {
			t.Fatal("an answer is not carried while nothing forbids it")
		}
	}
	for _, ipv6 := range []bool{false, true} { // the beginning is seen
		ended = append(ended, l.stream(t, "ops", "web", ipv6))
	}
	l.enforced(t, np("shop", "fence", sel("app", "web"), rules(from(namespace("team", "money"))), rules(from(both(all, sel("app", "ops"))))))
	for _, s := range kept {
		for _, end := range []int{0, 1} {
			if !s.within(end, 10*time.Second) {
				t.Errorf("permitted, %s: end %d does not get through", s.ends[0].RemoteAddr(), end)
			}
		}
	}
	var silence sync.WaitGroup
	for _, s := range ended {
		silence.Go(func() {
			for _, end := range []int{0, 1} {
				if s.carries(end) {
					t.Errorf("forbidden, %s to %s: end %d still gets through", s.ends[0].LocalAddr(), s.ends[0].RemoteAddr(), end)
				}
			}
		})
	}
	silence.Wait()
}

// enforced has the daemon's module enforce policies on the first node, and
// returns when it does.
func (l *lab) enforced(t *testing.T, list ...policy.NetworkPolicy) {
	t.Helper()
	objects := enforce.NewObjects()
	for _, n := range l.world.Namespaces {
		objects.SetNamespace(n)
	}
	for _, p := range l.world.Pods {
		objects.SetPod(p)
	}
	for _, p := range list {
		objects.SetPolicy(p)
	}
	m := daemon.New(daemon.Deps{
		Config: daemon.Config{Node: l.workers[0].name, Plain: true, Verify: time.Minute},
		Source: objects, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Namespaces: func(map[string]bool) {}, Report: func(daemon.State) {},
		Event: func(cluster.Reference, reason.Reason, string) {},
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.workers[0].space.Do(func() error { return m.Run(ctx) }) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	select {
	case <-m.Ready():
	case <-time.After(10 * time.Second):
		t.Fatal("policies are not enforced within ten seconds")
	}
}

// datagrams is both ends of a conversation over UDP.
func (l *lab) datagrams(t *testing.T, client, server string, ipv6 bool) *stream {
	t.Helper()
	ends := [2]*net.UDPConn{}
	open := func(i int, place string, dial func() (*net.UDPConn, error)) {
		t.Helper()
		if err := l.homes[place].Do(func() (err error) {
			ends[i], err = dial()
			return err
		}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ends[i].Close() })
	}
	addr := func(c *net.UDPConn) *net.UDPAddr { return c.LocalAddr().(*net.UDPAddr) }
	any := net.UDPAddrFromAddrPort(netip.AddrPortFrom(at(server, ipv6), 0))
	open(1, server, func() (*net.UDPConn, error) { return net.ListenUDP("udp", any) })
	open(0, client, func() (*net.UDPConn, error) { return net.DialUDP("udp", nil, addr(ends[1])) })
	s := &stream{ends: [2]net.Conn{ends[0], answering{ends[1], addr(ends[0])}}}
	if !s.carries(0) || !s.carries(1) {
		t.Fatalf("%s>%s carries nothing over UDP while nothing forbids it", client, server)
	}
	return s
}

// answering is a server's socket that knows its client.
type answering struct {
	*net.UDPConn
	client *net.UDPAddr
}

func (a answering) Write(b []byte) (int, error) { return a.WriteToUDP(b, a.client) }
