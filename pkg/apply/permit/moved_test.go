package permit

import (
	"net/netip"
	"testing"

	"poplin.dev/poplin/pkg/program/permit"
)

// TestSplit: of pairs that get other ports, those wait until the move that
// addresses only leave.
func TestSplit(t *testing.T) {
	pod, one, two := netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.0.3")
	type (
		pairs   = map[permit.Class]permit.Ports
		classes = map[netip.Addr]permit.Class
	)
	program := func(p pairs, c classes, ranges ...permit.Class) permit.Program {
		all := permit.New()
		for class, ports := range p {
			all.Ingress[permit.Pair{Pod: pod, Class: class}] = ports
		}
		for a, class := range c {
			all.Peers[a] = class
		}
		for _, class := range ranges {
			all.Ranges[permit.Range{First: netip.MustParseAddr("10.0.0.0"), Last: netip.MustParseAddr("10.0.0.99")}] = class
		}
		return all
	}
	for _, row := range []struct {
		name       string
		before, to permit.Program
		waits      []permit.Class
	}{
		{"nobody moves", program(pairs{0: 16}, nil), program(pairs{0: 17}, nil), nil},
		{"one leaves everybody", program(pairs{0: 16}, nil), program(pairs{0: 17, 1: 16}, classes{one: 1}), []permit.Class{0}},
		{"one comes back to everybody", program(pairs{0: 17, 1: 16}, classes{one: 1}), program(pairs{0: 16}, nil), nil},
		{"one leaves a class", program(pairs{1: 16}, classes{one: 1, two: 1}), program(pairs{1: 17, 2: 16}, classes{one: 1, two: 2}), []permit.Class{1}},
		{"one joins a class", program(pairs{1: 16, 2: 17}, classes{one: 1, two: 2}), program(pairs{1: 17}, classes{one: 1, two: 1}), nil},
		{"one leaves it and one joins it", program(pairs{1: 16, 2: 17}, classes{one: 1, two: 2}), program(pairs{1: 17, 2: 18}, classes{one: 2, two: 1}), nil},
		{"a class gets a pair of its own", program(pairs{0: 16}, classes{one: 1}), program(pairs{0: 17, 1: 16}, classes{one: 1}), []permit.Class{0}},
		{"one leaves a class without a pair", program(pairs{0: 16}, classes{one: 1, two: 1}), program(pairs{0: 17, 2: 16}, classes{one: 1, two: 2}), []permit.Class{0}},
		{"one leaves a range", program(pairs{1: 16}, nil, 1), program(pairs{1: 17, 2: 16}, classes{one: 2}, 1), []permit.Class{1}},
		{"one comes back to a range", program(pairs{1: 17, 2: 16}, classes{one: 2}, 1), program(pairs{1: 16}, nil, 1), nil},
	} {
		c := permit.Diff(row.before, row.to)
		_, going := unled(gone(c.Delete.Ingress, c.Put.Ingress), map[netip.Addr]struct{}{pod: {}}, left(c, row.to))
		first, last := moved(c, row.to).split(c.Delete.Ingress, c.Put.Ingress, row.to.Ingress, going)
		if len(first)+len(last) != len(c.Put.Ingress) {
			t.Errorf("%s: %v and %v of %v", row.name, first, last, c.Put.Ingress)
		}
		waits := map[permit.Class]bool{}
		for p := range last {
			waits[p.Class] = true
		}
		for _, class := range row.waits {
			if !waits[class] {
				t.Errorf("%s: class %s does not wait", row.name, class)
			}
			delete(waits, class)
		}
		for class := range waits {
			t.Errorf("%s: class %s waits", row.name, class)
		}
	}
}
