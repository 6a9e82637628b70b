package policy

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	policies "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/trace"
	oracle "poplin.dev/poplin/test/oracle/policies"
)

// A row is policies and what they mean, by hand: "web>db:80 yes" is a
// connection by TCP that must be answered, "web>db:80/udp no" a packet that
// nothing must answer. Each denial stands beside something allowed, which
// proves that the same place can be reached at all.
type row struct {
	name    string
	np      []policy.NetworkPolicy
	cnp     []policy.ClusterPolicy
	verdict string
}

// flow is one of a row's verdicts.
type flow struct {
	from, to string
	proto    service.Protocol
	port     uint16
	allowed  bool
}

func (f flow) String() string { return fmt.Sprintf("%s>%s:%d/%s", f.from, f.to, f.port, f.proto) }

func flows(t *testing.T, text string) (list []flow) {
	t.Helper()
	for part := range strings.SplitSeq(text, ",") {
		what, verdict, ok := strings.Cut(strings.TrimSpace(part), " ")
		from, rest, arrow := strings.Cut(what, ">")
		to, port, colon := strings.Cut(rest, ":")
		port, proto, udp := strings.Cut(port, "/")
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || !arrow || !colon || err != nil || udp && proto != "udp" || verdict != "yes" && verdict != "no" {
			t.Fatalf("cannot read %q", part)
		}
		f := flow{from: from, to: to, proto: service.TCP, port: uint16(n), allowed: verdict == "yes"}
		if udp {
			f.proto = service.UDP
		}
		list = append(list, f)
	}
	return list
}

// TestTable: the kernel of both nodes, the trace, the oracle and the hand that
// wrote the table agree, in both families, when the policies come and when
// they go.
func TestTable(t *testing.T) {
	l := newLab(t)
	cases := 0
	for _, r := range rows {
		t.Run(r.name, func(t *testing.T) {
			l.set(r.np, r.cnp)
			l.sync(t)
			list := flows(t, r.verdict)
			cases += len(list)
			l.judge(t, list)
		})
	}
	t.Logf("%d cases in two families", cases)
	if cases < 300 {
		t.Errorf("%d cases, at least 300 are promised", cases)
	}
	l.set(nil, nil)
	l.sync(t)
	for _, w := range l.workers {
		if n := w.program.Len(); n != 0 {
			t.Errorf("%s: %d elements without a policy:\n%s", w.name, n, w.program)
		}
	}
	l.judge(t, flows(t, "web>db:80 yes, db>api:8080/udp yes, host>ops:9090 yes"))
}

// judge asks everybody about every flow.
func (l *lab) judge(t *testing.T, list []flow) {
	t.Helper()
	var asked sync.WaitGroup
	for _, f := range list {
		for _, ipv6 := range []bool{false, true} {
			pkt := oracle.Packet{Src: at(f.from, ipv6), Dst: at(f.to, ipv6), Proto: f.proto, Port: f.port}
			if got := l.said(pkt); got != f.allowed {
				t.Errorf("IPv6 %v: %s: the oracle says %v, want %v", ipv6, f, got, f.allowed)
			}
			if got, steps := l.traced(pkt, f.from); got != f.allowed {
				t.Errorf("IPv6 %v: %s: trace says %v, want %v\n%s", ipv6, f, got, f.allowed, steps)
			}
			if got, why := l.explained(pkt); got != f.allowed {
				t.Errorf("IPv6 %v: %s: the explanation says %v, want %v\n%s", ipv6, f, got, f.allowed, why)
			}
			asked.Go(func() {
				if got, err := l.reaches(f.from, f.to, f.proto, f.port, ipv6); got != f.allowed {
					t.Errorf("IPv6 %v: %s: the kernel says %v (%v), want %v", ipv6, f, got, err, f.allowed)
				}
			})
		}
	}
	asked.Wait()
}

// said asks the oracle about both nodes.
func (l *lab) said(p oracle.Packet) bool {
	for _, w := range l.workers {
		world := l.world
		world.Node = w.name
		if !l.passes(w, p) && !world.Allowed(p) {
			return false
		}
	}
	return true
}

// passes: what a node sends to its own pods, or gets from them, it does not
// forward.
func (l *lab) passes(w *worker, p oracle.Packet) bool {
	own := map[string]string{"worker-1": "node1", "worker-2": "node2"}[w.name]
	is := func(a netip.Addr) bool { return a == at(own, a.Is6()) }
	return is(p.Src) || is(p.Dst)
}

// traced walks both nodes' programs.
func (l *lab) traced(p oracle.Packet, from string) (bool, string) {
	var steps []string
	for _, w := range l.workers {
		pkt := trace.Packet{Origin: trace.FromOutside, Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto}
		if l.passes(w, p) {
			pkt.Origin = trace.FromNode
		}
		v := trace.Policy(w.program, pkt)
		steps = append(steps, w.name)
		steps = append(steps, v.Steps...)
		if v.Action != trace.Pass {
			return false, strings.Join(steps, "\n")
		}
	}
	return true, strings.Join(steps, "\n")
}

// explained asks both nodes' tables whose rules decide.
func (l *lab) explained(p oracle.Packet) (bool, string) {
	allowed, why := true, ""
	for _, w := range l.workers {
		if l.passes(w, p) {
			continue
		}
		for _, d := range w.table.Explain(policies.Packet{Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto}) {
			allowed = allowed && d.Allowed
			why += d.String() + "\n"
		}
	}
	return allowed, why
}
