package policy

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	daemon "poplin.dev/poplin/daemon/policy"
	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/enforce"
)

// module is the daemon's part on one node of the lab, in place of the lab's
// own tables.
type module struct {
	objects  *enforce.Objects
	policies []policy.NetworkPolicy
	lines    lines
	passes   atomic.Int64
	dropped  sync.Map // direction and policy: *atomic.Int64
	overruns atomic.Int64
	stop     func()
}

// set makes these the policies there are.
func (m *module) set(list []policy.NetworkPolicy) {
	for _, p := range m.policies {
		m.objects.DeletePolicy(p.Key)
	}
	for _, p := range list {
		m.objects.SetPolicy(p)
	}
	m.policies = list
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// all are the lines with a message.
func (l *lines) all(t *testing.T, message string) (found []map[string]any) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range bytes.Lines(l.text.Bytes()) {
		var m map[string]any
		if err := json.Unmarshal(line, &m); err != nil {
			t.Fatal(err)
		}
		if m["msg"] == message {
			found = append(found, m)
		}
	}
	return found
}

func (l *lab) daemon(t *testing.T, node int, logDrops int, list []policy.NetworkPolicy) *module {
	t.Helper()
	w := l.workers[node]
	w.kernel.Close()
	m := &module{objects: enforce.NewObjects()}
	for _, n := range l.world.Namespaces {
		m.objects.SetNamespace(n)
	}
	m.objects.SetNodes(l.world.Nodes...)
	for _, p := range l.world.Pods {
		m.objects.SetPod(p)
	}
	m.set(list)
	d := daemon.New(daemon.Deps{
		Config: daemon.Config{Node: w.name, Verify: time.Hour, LogDrops: logDrops},
		Source: m.objects, Log: slog.New(slog.NewJSONHandler(&m.lines, nil)),
		Event:      func(cluster.Reference, reason.Reason, string) {},
		Namespaces: func(map[string]bool) {},
		Report:     func(daemon.State) { m.passes.Add(1) },
		Dropped: func(d daemon.Drop) {
			for _, s := range d.Sources {
				n, _ := m.dropped.LoadOrStore(d.Direction.String()+" "+s.String(), &atomic.Int64{})
				n.(*atomic.Int64).Add(int64(d.Packets))
			}
		},
		Overrun: func() { m.overruns.Add(1) },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- w.space.Do(func() error { return d.Run(ctx) }) }()
	m.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(m.stop)
	select {
	case <-d.Ready():
	case <-time.After(20 * time.Second):
		t.Fatal("the module does not get ready")
	}
	return m
}

// counted is what the kernel says that policies dropped on a node.
func (l *lab) counted(t *testing.T, node int, direction string) uint64 {
	t.Helper()
	counts, err := applypermit.Drops(int(l.workers[node].space.FD))
	if err != nil {
		t.Fatal(err)
	}
	n, found := counts[direction]
	if !found {
		t.Errorf("the kernel counts no drops by %s: %v", direction, counts)
	}
	return n
}

const dropLine = "a policy drops packets"

// said waits for a line in which all of these stand.
func (m *module) said(t *testing.T, want map[string]any) {
	t.Helper()
	await.Success(t, 20*time.Second, func() error {
		list := m.lines.all(t, dropLine)
		for _, line := range list {
			same := true
			for k, v := range want {
				same = same && line[k] == v
			}
			if same {
				return nil
			}
		}
		return fmt.Errorf("no line says %v: %v", want, list)
	})
}

// reaches reports whether a flow is answered.
func (l *lab) reaches(from, to string, proto service.Protocol, port uint16, ipv6 bool) (bool, error) {
	got, err := l.ask(flow{from: from, to: to, proto: proto, port: port}, ipv6)
	return got == yes, err
}

// TestDropsAreLogged: whose packets, where to, and which policies would have
// had to allow them, in both directions and families, for answers too. Nothing
// is said of what passes.
func TestDropsAreLogged(t *testing.T) {
	l := newLab(t)
	m := l.daemon(t, 0, 100, many(ingress("shop", sel("app", "web"), from(podsLike("app", "api"))), ingress("shop", all), egress("shop", sel("app", "api"))))
	cases := []struct{ from, to, direction, pod, peer, policies string }{
		{"db", "web", "ingress", "shop/web", "bank/db", "NetworkPolicy shop/ina and NetworkPolicy shop/inb"},
		{"host", "api", "ingress", "shop/api", "", "NetworkPolicy shop/inb"},
		{"node2", "api", "ingress", "shop/api", "node worker-2", "NetworkPolicy shop/inb"},
		{"api", "ops", "egress", "shop/api", "ops/ops", "NetworkPolicy shop/outc"},
	}
	families := []bool{false, true}
	for _, ipv6 := range families {
		for _, c := range cases {
			before := l.counted(t, 0, c.direction)
			if got, err := l.reaches(c.from, c.to, service.UDP, 8080, ipv6); got || err != nil {
				t.Fatalf("%s>%s passes: %v, %v", c.from, c.to, got, err)
			}
			if n := l.counted(t, 0, c.direction); n != before+1 {
				t.Errorf("%s>%s: the kernel counts %d drops more", c.from, c.to, n-before)
			}
		}
		if got, err := l.reaches("web", "ops", service.TCP, 80, ipv6); !got {
			t.Errorf("web>ops: %v", err)
		}
	}
	for _, ipv6 := range families {
		for _, c := range cases {
			address, other := at(c.to, ipv6), at(c.from, ipv6)
			if c.direction == "egress" {
				address, other = other, address
			}
			m.said(t, map[string]any{
				"direction": c.direction, "pod": c.pod, "peer": cmp.Or(c.peer, other.String()), "policies": c.policies, "protocol": "udp", "port": 8080.0,
				"address": address.String(), "peerAddress": other.String(), "reply": false, "packets": 1.0,
			})
		}
	}
	for _, line := range m.lines.all(t, dropLine) {
		if line["pod"] == "shop/web" && line["direction"] == "egress" || line["peer"] == "shop/web" {
			t.Errorf("said of what passes: %v", line)
		}
	}
	if n, _ := m.dropped.Load("ingress NetworkPolicy shop/inb"); n == nil || n.(*atomic.Int64).Load() < 6 {
		t.Errorf("shop/inb is not blamed six times: %v", n)
	}

	// An answer to what was permitted when it was asked.
	m.set(nil)
	await.Success(t, 20*time.Second, func() error {
		if got, err := l.reaches("db", "web", service.TCP, 80, false); !got {
			return fmt.Errorf("without policies: %v", err)
		}
		return nil
	})
	asked := l.stream(t, "db", "web", false)
	m.set(ingress("shop", sel("app", "web")))
	await.Success(t, 20*time.Second, func() error {
		if asked.carries(1) {
			return errors.New("the answer still passes")
		}
		return nil
	})
	m.said(t, map[string]any{"direction": "ingress", "pod": "shop/web", "peer": "bank/db", "policies": "NetworkPolicy shop/in", "protocol": "tcp", "reply": true})
}

// TestLoggingIsSwitched: a daemon that starts to log drops, or ends to, does
// not touch connections, and the kernel's rules are those of before again.
func TestLoggingIsSwitched(t *testing.T) {
	l := newLab(t)
	list := ingress("shop", sel("app", "web"), from(namespace("team", "money")))
	before := l.daemon(t, 0, 0, list)
	kept := l.stream(t, "db", "web", false)
	stopped := make(chan struct{})
	var lost atomic.Int64
	var carrying sync.WaitGroup
	carrying.Go(func() {
		for {
			select {
			case <-stopped:
				return
			default:
				if !kept.within(0, 20*time.Second) || !kept.within(1, 20*time.Second) {
					lost.Add(1)
				}
			}
		}
	})
	stop := before.stop
	for _, logged := range []int{10, 0, 10} {
		stop()
		m := l.daemon(t, 0, logged, list)
		stop = m.stop
		if got, _ := l.reaches("ops", "web", service.TCP, 80, false); got {
			t.Errorf("with %d lines a second, what is denied passes", logged)
		}
		if logged > 0 {
			m.said(t, map[string]any{"pod": "shop/web", "peer": "ops/ops"})
		}
	}
	close(stopped)
	carrying.Wait()
	if n := lost.Load(); n > 0 {
		t.Errorf("an established connection carried nothing %d times", n)
	}
}

// TestAFloodOfDropsDoesNoHarm: hundreds of thousands of packets that a policy
// drops, all of different flows, cost the daemon a bounded part of them; each
// is counted by the kernel, changes go on, and the log stays short.
func TestAFloodOfDropsDoesNoHarm(t *testing.T) {
	const packets, perSecond = 300_000, 5
	l := newLab(t)
	m := l.daemon(t, 0, perSecond, ingress("shop", sel("app", "web")))
	start := time.Now()
	l.flood(t, "host", "web", packets)
	took := time.Since(start)
	// A change while the daemon hears of it takes effect.
	m.set(append(ingress("shop", sel("app", "web")), egress("shop", sel("app", "api"))...))
	await.Success(t, 20*time.Second, func() error {
		if got, _ := l.reaches("api", "ops", service.TCP, 80, false); got {
			return errors.New("a change during the flood has no effect")
		}
		return nil
	})
	await.Success(t, 20*time.Second, func() error {
		if len(m.lines.all(t, "policies drop more than is logged")) == 0 {
			return errors.New("nothing says that there is more")
		}
		return nil
	})
	if n := l.counted(t, 0, "ingress"); n < packets {
		t.Errorf("the kernel counts %d drops of %d", n, packets)
	}
	seconds := int(time.Since(start)/time.Second) + 2
	heard := int64(0)
	if n, _ := m.dropped.Load("ingress NetworkPolicy shop/in"); n != nil {
		heard = n.(*atomic.Int64).Load()
	}
	said := len(m.lines.all(t, dropLine))
	t.Logf("%d drops in %s (%.0f a second), %d heard of, %d lines, %d overruns", packets, took.Round(time.Millisecond), packets/took.Seconds(), heard, said, m.overruns.Load())
	if heard == 0 || heard > int64(256*seconds) {
		t.Errorf("%d packets were heard of in %d s", heard, seconds)
	}
	if said == 0 || said > perSecond*seconds {
		t.Errorf("%d lines in %d s", said, seconds)
	}
}

// flood sends UDP packets to ever other ports, as fast as it can.
func (l *lab) flood(t *testing.T, from, to string, packets int) {
	t.Helper()
	var conn *net.UDPConn
	if err := l.homes[from].Do(func() (err error) {
		conn, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at(from, false), 0)))
		return err
	}); err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for i := range packets {
		_, err := conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(at(to, false), uint16(1+i%60000)))
		for errors.Is(err, syscall.ENOBUFS) {
			_, err = conn.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(at(to, false), uint16(1+i%60000)))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
