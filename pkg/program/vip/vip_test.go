package vip

import (
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/program/nft"
)

func TestValueHoldsItsParts(t *testing.T) {
	for range 1000 {
		group, count := rand.Uint32N(MaxGroups), rand.IntN(MaxEndpoints+1)
		v := To(group, count)
		for _, v := range []Value{v, v.Sticky(), v.Masqueraded(), v.Sticky().Masqueraded()} {
			if v.Group() != group || v.Count() != count || v.Pick().Count() != count || v.Pick().IsSticky() != v.IsSticky() {
				t.Fatalf("group %d, count %d: %s", group, count, v)
			}
		}
		if v.IsSticky() || v.IsMasqueraded() || !v.Sticky().IsSticky() || !v.Masqueraded().IsMasqueraded() {
			t.Fatalf("flags of %s", v)
		}
	}
	if Refuse.Pick() != 0 || Drop.Pick() != 0 || To(FirstGroup, 1) == Refuse {
		t.Error("a refusal must not lead to a chain that draws")
	}
}

func TestDiffAndApplyAreInverse(t *testing.T) {
	a, b := New(), New()
	front := func(port uint16) Front { return Front{Addr: netip.MustParseAddr("10.96.0.1"), Proto: 6, Port: port} }
	a.Frontends[front(1)], b.Frontends[front(1)] = Refuse, Drop
	a.Frontends[front(2)], b.Frontends[front(3)] = Refuse, Refuse
	b.Ranges[netip.MustParsePrefix("10.96.0.0/16")] = struct{}{}
	c := Diff(a, b)
	if c.Delete.Len() != 2 || c.Put.Len() != 3 {
		t.Errorf("delete\n%sput\n%s", c.Delete, c.Put)
	}
	c.Apply(a)
	if a.String() != b.String() || !Diff(a, b).Empty() {
		t.Errorf("got\n%swant\n%s", a, b)
	}
}

// Rules go only to chains that exist, and look only into maps of ours.
func TestChainsAreComplete(t *testing.T) {
	picks := []Pick{0, To(0, 1).Pick(), To(0, 3).Pick(), To(0, 3).Sticky().Pick()}
	chains := Chains(picks, []uint32{10800})
	names := map[string]bool{}
	for _, c := range chains {
		if names[c.Name] {
			t.Errorf("chain %s twice", c.Name)
		}
		names[c.Name] = true
	}
	for _, c := range chains {
		for _, r := range c.Rules {
			for _, s := range r {
				if v, ok := s.(nft.Verdict); ok && v.Chain != "" && !names[v.Chain] {
					t.Errorf("chain %s goes to %s, which is not there", c.Name, v.Chain)
				}
				if strings.Contains(s.String(), "%!") {
					t.Errorf("chain %s: %s", c.Name, s)
				}
			}
		}
	}
	for _, p := range picks {
		if !names[p.Chain()] {
			t.Errorf("no chain %s", p.Chain())
		}
	}
}
