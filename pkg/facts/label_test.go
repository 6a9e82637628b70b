package facts

import (
	"math"
	"net/netip"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
)

// What others' rules write on a packet, in the order in which it meets them.
func TestLabel(t *testing.T) {
	p := Packet{Flow: Flow{Src: addr("10.244.0.5"), To: netip.MustParseAddrPort("10.96.0.9:80"), Proto: service.TCP}, In: "plw1"}
	zone := uint16(7)
	in := func(name string) *NameMatch { return &NameMatch{Name: name} }
	chains := []Chain{
		{Family: "ip", Table: "late", Name: "a", Hook: "prerouting", Priority: -150, Rules: []Rule{{Mark: &MarkWrite{Keep: 0xf0, Flip: 1}}}},
		{Family: "ip", Table: "early", Name: "a", Hook: "prerouting", Priority: -310, Rules: []Rule{
			{In: in("plw1"), Zone: &zone}, {Mark: &MarkWrite{Flip: 0xff}},
			{In: in("eth0"), Mark: &MarkWrite{Flip: 9}}, {Obscure: []string{"limit"}, Mark: &MarkWrite{Flip: 9}},
			{Verdict: "accept"}, {Mark: &MarkWrite{Flip: 9}},
		}},
		{Family: "ip", Table: "early", Name: "b", Hook: "output", Priority: -310, Rules: []Rule{{Mark: &MarkWrite{Flip: 9}}}},
	}
	for before, want := range map[int]Labels{-310: {}, -200: {Mark: 0xff, Zone: 7}, math.MaxInt: {Mark: 0xf1, Zone: 7}} {
		if got, why := Label(chains, "prerouting", before, p); got != want || (why == "") != (want == Labels{}) {
			t.Errorf("before %d: %+v, %q; want %+v", before, got, why, want)
		}
	}
}
