package policy

import (
	"fmt"
	"maps"
	"math/rand/v2"
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
	for _, c := range permit.Chains(permit.State{Isolating: true}) {
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

// TestEveryRuleCounts changes the kernel's rules one by one: each time something
// must go wrong. All of them in a soak, some otherwise. They are those of a kernel
// that does not label connections, which looks at each packet: a label hides what
// the rules for answers would say. The rules about labels, and about what is
// known, are so left out: a kernel without one of them looks at each packet, and
// decides the same.
func TestEveryRuleCounts(t *testing.T) {
	all := mutants()
	list, labs := all, 6 // which mostly wait
	if !soak.Full() {
		rand.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		list, labs = list[:4], 1
	}
	for i := range labs {
		t.Run(fmt.Sprintf("lab %d", i), func(t *testing.T) {
			t.Parallel()
			l := openLab(t, applypermit.Config{Plain: true, Unlabelled: true})
			looks := l.looks(t)
			if wrong := goesWrong(t, looks); wrong != "" {
				t.Fatalf("wrong with all rules as they should be: %s", wrong)
			}
			for n := i; n < len(list); n += labs {
				m := list[n]
				l.mutant = &m.chain
				l.rewrite(t, m.chain)
				if goesWrong(t, looks) == "" {
					t.Errorf("nothing goes wrong with %s", m.what)
				}
				l.mutant = nil
				for _, c := range permit.Chains(permit.State{Isolating: true}) {
					if c.Name == m.chain.Name {
						l.rewrite(t, c)
					}
				}
			}
		})
	}
	t.Logf("%d of %d changes of rules", len(list), len(all))
}

// look is something that the kernel can be asked, and what is wrong with its
// answer.
type look struct {
	name  string
	wrong func(t *testing.T) string
}

// looks are every row of the table, and what the table cannot say.
func (l *lab) looks(t *testing.T) []look {
	list := []look{
		{"classes", l.choosesClass},
		{"a server alone sends", l.serverAlone},
		{"errors of clients", l.clientsRefuse},
	}
	for _, r := range rows {
		asked := flows(t, r.verdict)
		list = append(list, look{r.name, func(t *testing.T) string {
			l.set(r.np, r.cnp)
			l.sync(t)
			if wrong := l.wrong(asked); len(wrong) > 0 {
				return wrong[0]
			}
			return ""
		}})
	}
	return list
}

// goesWrong looks until something is not as it should be. What gave one change
// away may well give the next one away, so it comes first from then on.
func goesWrong(t *testing.T, looks []look) string {
	t.Helper()
	for i, k := range looks {
		if wrong := k.wrong(t); wrong != "" {
			copy(looks[1:], looks[:i])
			looks[0] = k
			return k.name + ": " + wrong
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
func (l *lab) rewrite(t testing.TB, c nft.Chain) {
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
