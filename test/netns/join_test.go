package netns

import (
	"fmt"
	"net/netip"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

// crowd is the i-th of many nodes, none of which answers.
func crowd(i int) cluster.Node {
	hi, lo, name := byte(i>>8), byte(i), fmt.Sprintf("peer-%05d", i)
	return cluster.Node{
		Name: name, MTU: 1450, Created: time.Unix(int64(i*7919%10007), 0),
		PodCIDRs: []netip.Prefix{
			netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + hi, lo, 0}), 24),
			netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: 1 + hi, 7: lo}), 64),
		},
		VTEP: cluster.VTEP{Addr: netip.AddrFrom4([4]byte{198, 18, hi, lo}), MAC: cluster.MACOf(name)},
	}
}

// BenchmarkJoin is what a node costs its peer that comes and goes, from the
// cluster's view to the kernel, among many others.
func BenchmarkJoin(b *testing.B) {
	for _, size := range []int{1000, 5000} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			l := newLab(b, dual, 1)
			for i := range size {
				n := crowd(i)
				l.api.nodes[n.Name] = n
			}
			n := l.nodes[0]
			m := n.start(b)
			ready(b, m)
			until := func(peers int) {
				for n.state().Peers != peers {
					time.Sleep(100 * time.Microsecond)
				}
			}
			until(size)
			newcomer := crowd(size)
			b.ReportAllocs()
			for b.Loop() {
				l.api.change(func() { l.api.nodes[newcomer.Name] = newcomer })
				until(size + 1)
				l.api.change(func() { delete(l.api.nodes, newcomer.Name) })
				until(size)
			}
		})
	}
}
