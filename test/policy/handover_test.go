package policy

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster/policy"
	policies "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/soak"
	"poplin.dev/poplin/test/space"
)

// TestWhatIsPermittedIsNeverDropped: between two lookups a packet may meet what
// the kernel held before a change, and then what it holds after it. As fast as
// pods can send, none of what is permitted before and after is dropped, also
// where a new daemon gives everything other numbers.
func TestWhatIsPermittedIsNeverDropped(t *testing.T) {
	l := newLab(t)
	some := many(
		ingress("shop", sel("app", "web"), on(from(both(all, sel("app", "db|other"))), udp(80), tcpRange(80, 90))),
		ingress("shop", sel("app", "web"), on(from(both(all, sel("app", "other"))), udp(81))),
		egress("bank", all, on(from(namespace("team", "sales")), udp(80), tcp(80))))
	more := many(some,
		ingress("shop", all, on(from(namespace("team", "money"), block("198.18.0.0/15")), udp(82))),
		egress("bank", all, on(from(podsLike("app", "db")), udp(82), tcpRange(100, 200))))
	l.set(some, nil)
	l.sync(t)
	l.sendsAll(t, "db", "web", 80)
	for _, change := range []struct {
		name string
		make func(i int)
	}{
		{"another daemon", func(i int) { l.replaced(t, l.workers[i%2]) }},
		{"other policies", func(i int) { l.set([][]policy.NetworkPolicy{more, some}[i%2], nil); l.sync(t) }},
		{"another label", func(i int) {
			p := pods()[2]
			p.Labels["app"] = []string{"other", "db"}[i%2]
			l.setPod(p)
			l.sync(t)
		}},
		{"flush of a table that has an owner", func(int) {
			if err := l.workers[0].space.Do(func() error { space.Nft(t, "flush", "ruleset"); return nil }); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		times := soak.Times(1000)
		for i := range times {
			change.make(i)
		}
		if n := l.dropped(t); n > 0 {
			t.Fatalf("%s: %d times, and %d packets dropped that are permitted", change.name, times, n)
		}
	}
	l.set(egress("bank", all), nil)
	l.sync(t)
	await.Success(t, 10*time.Second, func() error {
		if l.dropped(t) == 0 {
			return errors.New("nothing is dropped either when nothing is permitted")
		}
		return nil
	})
}

// TestWhoKeepsAPortKeepsIt: of everybody, who was permitted two ports, all but one
// pod lose one, and get it back. What that pod sends there is never dropped, though
// each of its packets is looked up.
func TestWhoKeepsAPortKeepsIt(t *testing.T) {
	l := openLab(t, applypermit.Config{Plain: true, Unlabelled: true})
	everybody := ingress("shop", sel("app", "web"), on(from(), udp(80), udp(81)))
	one := many(ingress("shop", sel("app", "web"), on(from(), udp(81))),
		ingress("shop", sel("app", "web"), on(from(both(all, sel("app", "db"))), udp(80), udp(81))))
	l.set(everybody, nil)
	l.sync(t)
	l.sendsAll(t, "db", "web", 80)
	times := soak.Times(1000)
	for i := range times {
		l.set([][]policy.NetworkPolicy{one, everybody}[i%2], nil)
		l.sync(t)
	}
	if n := l.dropped(t); n > 0 {
		t.Errorf("%d times, and %d packets dropped that are permitted", times, n)
	}
}

// dropped is how many packets policies have dropped on both nodes.
func (l *lab) dropped(t *testing.T) (n uint64) {
	t.Helper()
	for i := range l.workers {
		n += l.counted(t, i, "egress") + l.counted(t, i, "ingress")
	}
	return n
}

// sendsAll has one place send packets to a port of another in both families,
// one after the other, until the test ends.
func (l *lab) sendsAll(t *testing.T, from, to string, port uint16) {
	t.Helper()
	var running sync.WaitGroup
	for _, ipv6 := range []bool{false, true} {
		var c net.Conn
		if err := l.homes[from].Do(func() (err error) {
			c, err = net.Dial("udp", netip.AddrPortFrom(at(to, ipv6), port).String())
			return err
		}); err != nil {
			t.Fatal(err)
		}
		running.Go(func() {
			for t.Context().Err() == nil {
				c.Write([]byte{0}) // an error is an earlier packet's
			}
			c.Close()
		})
	}
	t.Cleanup(running.Wait)
}

// replaced has a node's table compiled by another process, which knows what the
// kernel holds of the one before.
func (l *lab) replaced(t *testing.T, w *worker) {
	t.Helper()
	before, err := w.kernel.Program()
	if err != nil {
		t.Fatal(err)
	}
	w.table = policies.NewTable(w.name, before)
	for _, n := range l.world.Namespaces {
		w.table.SetNamespace(n)
	}
	for _, n := range l.world.Nodes {
		w.table.SetNode(n)
	}
	for _, p := range l.world.Pods {
		w.table.SetPod(p)
	}
	for _, p := range l.world.Policies {
		w.table.SetPolicy(p)
	}
	w.table.Take()
	w.kernel.Forget()
	if _, err := w.kernel.Set(w.table.Program()); err != nil {
		t.Fatal(err)
	}
}

// TestMoreThanIsKnown: of more flows than the kernel remembers to be permitted
// each is permitted, and a change denies those that it remembers too.
func TestMoreThanIsKnown(t *testing.T) {
	const flows = permit.KnownMax * 5 / 4
	l := newLab(t)
	l.set(ingress("shop", sel("app", "web"), from(namespace("team", "money"))), nil)
	l.sync(t)
	l.flood(t, "db", "web", flows)
	if n := l.counted(t, 0, "ingress"); n > 0 {
		t.Errorf("%d packets dropped that are permitted", n)
	}
	l.set(ingress("shop", sel("app", "web"), from(namespace("team", "sales"))), nil)
	l.sync(t)
	l.flood(t, "db", "web", flows)
	await.Success(t, 10*time.Second, func() error {
		if n := l.counted(t, 0, "ingress"); n < flows {
			return fmt.Errorf("%d packets dropped of %d that are not permitted any more", n, flows)
		}
		return nil
	})
}
