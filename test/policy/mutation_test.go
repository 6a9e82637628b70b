package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/nft"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/test/soak"
)

// mutant is a chain with one rule that is gone or means the opposite.
type mutant struct {
	what  string
	chain nft.Chain
}

func mutants() (list []mutant) {
	for _, c := range permit.Chains(0) {
		for i, r := range c.Rules {
			changed := func(what string, rules ...nft.Rule) {
				m := mutant{fmt.Sprintf("%s in chain %s: %s", what, c.Name, r), c}
				m.chain.Rules = slices.Replace(slices.Clone(c.Rules), i, i+1, rules...)
				list = append(list, m)
			}
			changed("deleted")
			for j, s := range r {
				if other, ok := opposite(s); ok {
					changed("opposite of "+s.String(), slices.Replace(slices.Clone(r), j, j+1, other))
				}
			}
		}
	}
	return list
}

func opposite(s nft.Statement) (nft.Statement, bool) {
	switch s := s.(type) {
	case nft.Verdict:
		if s == nft.Silence {
			return nft.Return, true
		}
		return nft.Silence, true
	case nft.In:
		s.Not = !s.Not
		return s, true
	case nft.ClassIs:
		s.Not = !s.Not
		return s, s.Mask != 0
	}
	return nil, false
}

// TestEveryRuleCounts changes the kernel's rules one by one: at least 95 in 100
// times the table must go wrong. All of them in a soak, some otherwise. They are
// those of a kernel that does not label connections, which looks at each packet:
// a label hides what the rules for answers would say.
func TestEveryRuleCounts(t *testing.T) {
	l := openLab(t, applypermit.Config{Plain: true, Unlabelled: true})
	all := mutants()
	list := all
	if !soak.Full() {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:4]
	}
	if wrong := l.goesWrong(t); wrong != "" {
		t.Fatalf("wrong with all rules as they should be: %s", wrong)
	}
	var missed []string
	for _, m := range list {
		l.rewrite(t, m.chain)
		if l.goesWrong(t) == "" {
			missed = append(missed, m.what)
		}
		for _, c := range permit.Chains(0) {
			if c.Name == m.chain.Name {
				l.rewrite(t, c)
			}
		}
	}
	for _, m := range missed {
		t.Logf("nothing goes wrong with %s", m)
	}
	t.Logf("%d of %d changes of rules, %d noticed", len(list), len(all), len(list)-len(missed))
	if 20*len(missed) > len(list) && soak.Full() || len(missed) == len(list) {
		t.Errorf("%d of %d changes go unnoticed", len(missed), len(list))
	}
}

// goesWrong runs the table until something is not as it should be.
func (l *lab) goesWrong(t *testing.T) string {
	t.Helper()
	if wrong := l.choosesClass(t); wrong != "" {
		return wrong
	}
	for _, r := range rows {
		l.set(r.np, r.cnp)
		l.sync(t)
		if wrong := l.wrong(flows(t, r.verdict)); len(wrong) > 0 {
			return r.name + ": " + wrong[0]
		}
	}
	return ""
}

// TestPacketsDoNotChooseTheirClass: the type of service of an IPv4 packet, from
// which Linux derives a priority, says nothing about who sent it.
func TestPacketsDoNotChooseTheirClass(t *testing.T) {
	if wrong := newLab(t).choosesClass(t); wrong != "" {
		t.Error(wrong)
	}
}

// choosesClass has somebody in no class send with every priority that a
// permitted class has as its number.
func (l *lab) choosesClass(t *testing.T) string {
	t.Helper()
	w, pod := l.workers[0], at("web", false)
	p := permit.New()
	p.Receivers[pod], p.Loops[pod] = struct{}{}, struct{}{}
	for class := permit.Class(1); class < 16; class++ {
		p.Ingress[permit.Pair{Pod: pod, Class: class}] = permit.Everything
	}
	l.hold(t, w, p)
	defer l.hold(t, w, w.program)
	for _, tos := range []int{0x08, 0x10, 0x18} {
		got := ""
		if err := l.homes["host"].Do(func() (err error) {
			got, err = exchanged(at("host", false), netip.AddrPortFrom(pod, 80), service.UDP, tos)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if got != no {
			return fmt.Sprintf("with type of service %#x, what nobody permits: %s", tos, got)
		}
	}
	return ""
}

// hold gives a node's kernel a program.
func (l *lab) hold(t testing.TB, w *worker, p permit.Program) {
	t.Helper()
	if _, err := w.kernel.Set(p); err != nil {
		t.Fatalf("%s: %v", w.name, err)
	}
}

// rewrite replaces the rules of a chain, on both nodes.
func (l *lab) rewrite(t *testing.T, c nft.Chain) {
	t.Helper()
	for _, w := range l.workers {
		if err := w.space.Do(func() error {
			sock, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
			if err != nil {
				return err
			}
			defer sock.Close()
			b := wire.NewBatch(applypermit.Name)
			b.DropRules(c.Name)
			for _, r := range c.Rules {
				if err := b.AddRule(c.Name, r); err != nil {
					return err
				}
			}
			return b.Send(sock)
		}); err != nil {
			t.Fatalf("%s: rewrite chain %s: %v", w.name, c.Name, err)
		}
	}
}

// TestEveryElementCounts changes an element of what the kernels hold for a row
// of the table, in a way that makes a difference to some packet: at least 95 in
// 100 times somebody must notice who sends packets of every kind from everywhere
// to everywhere. Every row in a soak, some otherwise.
func TestEveryElementCounts(t *testing.T) {
	l := newLab(t)
	seed := rand.Uint64()
	dice := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	list := slices.Clone(rows)
	if !soak.Full() {
		dice.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list = list[:6]
	}
	changed, missed := 0, 0
	for _, r := range list {
		l.set(r.np, r.cnp)
		l.sync(t)
		for _, w := range l.workers {
			what, p, matters := l.otherwise(dice, w, l.everything())
			if len(matters) == 0 {
				continue
			}
			changed++
			l.hold(t, w, p)
			if len(l.wrong(matters)) == 0 {
				missed++
				t.Logf("%s, %s: nobody notices %s", r.name, w.name, what)
			}
			l.hold(t, w, w.program)
		}
	}
	t.Logf("%d elements changed, %d noticed", changed, changed-missed)
	if 20*missed > changed {
		t.Errorf("%d of %d changes go unnoticed", missed, changed)
	}
}

// everything is each kind of packet from everywhere to everywhere, and what the
// oracle says of it.
func (l *lab) everything() (list []flow) {
	for _, from := range slices.Sorted(maps.Keys(places)) {
		for _, to := range slices.Sorted(maps.Keys(places)) {
			if from == endpoint(to) && from != "web" || from == "self" || to == from {
				continue
			}
			for _, proto := range []service.Protocol{service.TCP, service.UDP} {
				for _, port := range listened {
					f := flow{from, to, proto, port, no}
					if l.said(f.packet(false)) {
						f.want = yes
					}
					list = append(list, f)
				}
			}
		}
	}
	return list
}

// otherwise changes an element of a node's program so that packets fare
// otherwise, and returns them; none where that takes too many tries.
func (l *lab) otherwise(dice *rand.Rand, w *worker, all []flow) (what string, p permit.Program, matters []flow) {
	good := w.program
	defer func() { w.program = good }()
	for try := 0; try < 50 && len(matters) == 0; try++ {
		what, w.program = spoilt(dice, good)
		p = w.program
		matters = slices.DeleteFunc(slices.Clone(all), func(f flow) bool {
			four, _ := l.traced(f.packet(false))
			six, _ := l.traced(f.packet(true))
			return four == f.allowed() && six == f.allowed()
		})
	}
	return what, p, matters
}

// spoilt is a program in which one element is gone or has another's value.
func spoilt(dice *rand.Rand, good permit.Program) (what string, p permit.Program) {
	p = permit.New()
	permit.Diff(p, good).Apply(p)
	ports := []permit.Ports{permit.Nothing, permit.Everything}
	ports = slices.AppendSeq(slices.AppendSeq(ports, maps.Values(good.Egress)), maps.Values(good.Ingress))
	classes := slices.AppendSeq([]permit.Class{0}, maps.Values(good.Peers))
	slices.Sort(ports) // so that a seed tells the same again
	slices.Sort(classes)
	switch dice.IntN(7) {
	case 0:
		return "senders: " + change(dice, p.Senders), p
	case 1:
		return "receivers: " + change(dice, p.Receivers), p
	case 2:
		return "egress: " + change(dice, p.Egress, ports...), p
	case 3:
		return "ingress: " + change(dice, p.Ingress, ports...), p
	case 4:
		return "peers: " + change(dice, p.Peers, classes...), p
	case 5:
		return "ranges: " + change(dice, p.Ranges, classes...), p
	}
	return "ports: " + change(dice, p.Ports), p
}

// change takes an element of a map out, or gives it one of some values.
func change[K interface {
	comparable
	fmt.Stringer
}, V any](dice *rand.Rand, m map[K]V, values ...V) string {
	keys := slices.SortedFunc(maps.Keys(m), func(a, b K) int { return strings.Compare(a.String(), b.String()) })
	if len(keys) == 0 {
		return "none"
	}
	k := keys[dice.IntN(len(keys))]
	if len(values) == 0 || dice.IntN(2) == 0 {
		delete(m, k)
		return fmt.Sprintf("without %s", k)
	}
	m[k] = values[dice.IntN(len(values))]
	return fmt.Sprintf("%s has %v", k, m[k])
}
