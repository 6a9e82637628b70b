package policy

import (
	"fmt"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/reason"
	compiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/program/permit"
)

// address is the nth of a range that nobody in the lab has.
func address(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64 + byte(n>>16), byte(n >> 8), byte(n)})
}

func host(n int) netip.Prefix { return netip.PrefixFrom(address(n), 32) }

// times makes a list of what one function says of each number.
func times[T any](n int, of func(i int) T) []T {
	list := make([]T, n)
	for i := range list {
		list[i] = of(i)
	}
	return list
}

// Outside of the lab's ranges, without the host.
var outside = []policy.Peer{block("192.0.2.0/24"), block("2001:db8:c::/64")}

// hostile are policies that cannot be right, or are too much for most.
var hostile = []struct {
	row
	reason   reason.Reason // of the findings about it
	findings int
}{
	{row{"ranges of ports that end before they begin", ingress("shop", sel("app", "web"),
		policy.Rule{Ports: times(1000, func(i int) policy.Port { return tcpRange(9090, uint16(i+1)) })}, on(anyone, tcp(80))), nil,
		"db>web:80 yes, db>web:8080 no, db>web:9090 no"}, reason.BadPort, 10},
	{row{"a thousand rules of all ports", ingress("shop", sel("app", "web"), times(1000, func(i int) policy.Rule {
		return on(from(both(sel(), sel("app", fmt.Sprint("x", i, "|api")))), tcpRange(1, 65535))
	})...), nil, "api>web:80 yes, api>web:9090 yes, api>web:80/udp no, db>web:80 no"}, 0, 0},
	{row{"a thousand ranges, each within the one before", ingress("shop", sel("app", "web"), times(1000, func(i int) policy.Rule {
		return on(from(podsLike()), tcpRange(uint16(8000+i), uint16(10000-i)))
	})...), nil, "api>web:8080 yes, api>web:9090 yes, api>web:80 no, db>web:8080 no"}, 0, 0},
	{row{"ten thousand rules", ingress("shop", sel("app", "web"), times(10000, func(i int) policy.Rule {
		return on(from(policy.Peer{Block: netip.MustParsePrefix("0.0.0.0/0"), Except: []netip.Prefix{host(i)}}), tcp(uint16(i+1)))
	})...), nil, "db>web:80 no, host>web:80 no, web>db:80 yes"}, reason.TooLarge, 1},
	{row{"a thousand rules of all addresses but one", ingress("shop", sel("app", "web"), times(1000, func(i int) policy.Rule {
		return on(from(policy.Peer{Block: netip.MustParsePrefix("0.0.0.0/0"), Except: []netip.Prefix{host(i)}}, block("::/0")), tcp(uint16(i+1)))
	})...), nil, "db>web:80 yes, host>web:80 yes, db>web:8080 no, host>web:80/udp no"}, 0, 0},
	{row{"ten thousand blocks", ingress("shop", sel("app", "web"), from(append(times(10000, func(i int) policy.Peer {
		return policy.Peer{Block: host(2 * i)}
	}), outside...)...)), nil, "host>web:80 yes, db>web:80 no, api>web:80 no"}, 0, 0},
	{row{"ten thousand exceptions, and those within each other", ingress("shop", sel("app", "web"), from(append(outside, policy.Peer{
		Block: netip.MustParsePrefix("0.0.0.0/0"),
		Except: append(times(10000, func(i int) netip.Prefix { return netip.PrefixFrom(address(2*i), 32-max(0, 7-i)) }),
			netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("172.16.0.0/12")),
	})...)), nil, "host>web:80 yes, db>web:80 no, api>web:80 no, node2>web:80 no"}, 0, 0},
	{row{"blocks within each other, the notation of each another", egress("shop", sel("app", "web"), from(append(times(5000, func(i int) policy.Peer {
		a := netip.AddrFrom4([4]byte{192, 0, 2, byte(i)})
		if i%2 == 0 {
			return policy.Peer{Block: netip.PrefixFrom(netip.AddrFrom16(a.As16()), 96+i%33)}
		}
		return policy.Peer{Block: netip.PrefixFrom(a, i%33)}
	}), block("2001:db8:c::1/32"))...)), nil, "web>host:80 yes"}, reason.BadPeer, 10},
	{row{"too many blocks", ingress("shop", sel("app", "web"), from(append(times(30000, func(i int) policy.Peer {
		return policy.Peer{Block: host(2 * i)}
	}), outside...)...)), nil, "host>web:80 no, db>web:80 no, web>host:80 yes"}, reason.TooLarge, 1},
	{row{"a thousand policies for everybody from everybody", times(1000, func(i int) policy.NetworkPolicy {
		return np("shop", fmt.Sprint("p", i), all, rules(on(from(namespace()), tcp(80))), nil)
	}), nil, "db>web:80 yes, db>api:80 yes, db>web:8080 no, host>web:80 no"}, 0, 0},
	{row{"a thousand ports whose names no pod has", []policy.NetworkPolicy{np("shop", "p", all,
		rules(policy.Rule{Ports: times(1000, func(i int) policy.Port { return named(fmt.Sprint("in", i)) })}),
		rules(policy.Rule{Ports: times(1000, func(i int) policy.Port { return named(fmt.Sprint("out", i)) })}))}, nil,
		"web>api:80 no, web>db:80 no, db>web:80 no, db>ops:80 yes"}, 0, 0},
	{row{"selectors that an old API server let pass", []policy.NetworkPolicy{
		np("shop", "p", &policy.Selector{{Label: "app", Operator: "Is", Values: []string{"web"}}}, rules(), nil),
		np("shop", "q", sel("app", "web"), rules(from(policy.Peer{Pods: &policy.Selector{{Label: "app", Operator: policy.NotIn}}}),
			from(policy.Peer{Namespaces: &policy.Selector{{Label: "team", Operator: policy.Exists, Values: []string{"sales"}}}})), nil),
	}, nil, "api>web:80 no, ops>web:80 no, db>api:80 yes"}, reason.BadSelector, 3},
	{row{"all networks that one cluster policy can have", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), nil, nil,
		append(times(24, func(i int) policy.ClusterRule {
			return crule(policy.Deny, on(from(times(625, func(j int) policy.Peer { return policy.Peer{Block: host(2 * (625*i + j))} })...), tcp(uint16(i+1))))
		}), crule(policy.Deny, on(from(outside...), tcp(80)))))},
		"web>host:80 no, web>host:8080 yes, web>db:80 yes"}, 0, 0},
}

func permittingNothing(list []policy.NetworkPolicy) []policy.NetworkPolicy {
	list = slices.Clone(list)
	for i := range list {
		list[i].Ingress = rules()
	}
	return list
}

// heap is what the process holds, in bytes.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBadInput: what cannot be right, or is very much, is served as far as it
// has a meaning, or refused whole and by name; the kernel holds all that was
// decided and nothing else, and lets go of it.
func TestBadInput(t *testing.T) {
	l := newLab(t)
	for _, h := range hostile {
		t.Run(h.name, func(t *testing.T) {
			before, start := heap(), time.Now()
			findings := l.set(h.np, h.cnp)
			if h.reason == reason.TooLarge {
				l.world.Policies = permittingNothing(h.np) // the oracle knows no limits
			}
			change := l.workers[0].table.Take()
			compiled := time.Since(start)
			w := l.workers[0]
			if err := w.kernel.Apply(change); err != nil {
				t.Fatal(err)
			}
			took := time.Since(start)
			change.Apply(w.program)
			t.Logf("%d elements: compiled within %v, in the kernel within %v; %d MiB", w.program.Len(), compiled.Round(time.Millisecond),
				took.Round(time.Millisecond), (heap()-before)>>20)
			l.sync(t)
			w.kernel.Forget()
			held, err := w.kernel.Program()
			if err != nil {
				t.Fatal(err)
			}
			if c := permit.Diff(held, w.table.Program()); !c.Empty() {
				t.Errorf("the kernel has %d elements too many and lacks %d", c.Delete.Len(), c.Put.Len())
			}
			odd := slices.DeleteFunc(slices.Clone(findings), func(f compiler.Finding) bool { return f.Reason == h.reason || f.Reason == reason.MoreFindings })
			if len(findings) != h.findings || len(odd) > 0 {
				t.Errorf("%d findings, want %d of %q: %+v", len(findings), h.findings, h.reason, findings)
			}
			l.judge(t, flows(t, h.verdict))
		})
	}
	l.set(nil, nil)
	l.sync(t)
	for _, w := range l.workers {
		if n := w.program.Len(); n != 0 {
			t.Errorf("%s: %d elements are left", w.name, n)
		}
	}
}
