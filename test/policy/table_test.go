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
// nothing must answer, "web>db:7/udp refused" one at a port where nobody
// listens, about which an error must come back. Of SCTP a first packet must
// arrive, of ICMP an echo. Each denial stands beside something allowed, which
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
	want     string
}

func (f flow) String() string { return fmt.Sprintf("%s>%s:%d/%s", f.from, f.to, f.port, f.proto) }

// allowed reports whether policies let the flow through.
func (f flow) allowed() bool { return f.want != no }

// packet is what policies see of the flow.
func (f flow) packet(ipv6 bool) oracle.Packet {
	p := oracle.Packet{Src: at(f.from, ipv6), Dst: at(endpoint(f.to), ipv6), Proto: f.proto, Port: f.port}
	if f.proto == icmp && ipv6 {
		p.Proto = icmp6
	}
	return p
}

// What may become of a flow.
const yes, no, refused = "yes", "no", "refused"

// ICMP by its IANA numbers: protocols without ports.
const icmp, icmp6 service.Protocol = 1, 58

var protocols = map[string]service.Protocol{"": service.TCP, "udp": service.UDP, "sctp": service.SCTP, "icmp": icmp}

func flows(t testing.TB, text string) (list []flow) {
	t.Helper()
	for part := range strings.SplitSeq(text, ",") {
		what, want, ok := strings.Cut(strings.TrimSpace(part), " ")
		from, rest, arrow := strings.Cut(what, ">")
		to, port, colon := strings.Cut(rest, ":")
		port, name, _ := strings.Cut(port, "/")
		proto, known := protocols[name]
		n, err := strconv.ParseUint(port, 10, 16)
		if !ok || !arrow || !colon || !known || err != nil || want != yes && want != no && want != refused {
			t.Fatalf("cannot read %q", part)
		}
		list = append(list, flow{from, to, proto, uint16(n), want})
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
	for _, f := range list {
		for _, ipv6 := range []bool{false, true} {
			pkt := f.packet(ipv6)
			if got := l.said(pkt); got != f.allowed() {
				t.Errorf("IPv6 %v: %s: the oracle says %v, want %s", ipv6, f, got, f.want)
			}
			if got, steps := l.traced(pkt); got != f.allowed() {
				t.Errorf("IPv6 %v: %s: trace says %v, want %s\n%s", ipv6, f, got, f.want, steps)
			}
			if got, why := l.explained(pkt); got != f.allowed() {
				t.Errorf("IPv6 %v: %s: the explanation says %v, want %s\n%s", ipv6, f, got, f.want, why)
			}
		}
	}
	for _, wrong := range l.wrong(list) {
		t.Error(wrong)
	}
}

// wrong asks the kernel about every flow, in both families, and returns where
// it says something else.
func (l *lab) wrong(list []flow) (wrong []string) {
	var asked sync.WaitGroup
	var mu sync.Mutex
	for _, f := range list {
		for _, ipv6 := range []bool{false, true} {
			asked.Go(func() {
				got, err := l.ask(f, ipv6)
				// A busy machine is silent too, but not for ever.
				for again := 0; again < 5 && got == no && f.want != no; again++ {
					got, err = l.ask(f, ipv6)
				}
				if got != f.want {
					mu.Lock()
					wrong = append(wrong, fmt.Sprintf("IPv6 %v: %s: the kernel says %s (%v), want %s", ipv6, f, got, err, f.want))
					mu.Unlock()
				}
			})
		}
	}
	asked.Wait()
	return wrong
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
func (l *lab) traced(p oracle.Packet) (bool, string) {
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
