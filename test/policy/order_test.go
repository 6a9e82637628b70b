package policy

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/test/soak"
)

// step is an object that comes or changes, and later goes or is as it was.
type step struct {
	name     string
	do, undo func(l *lab)
}

// steps are of each kind of object, and all about the same packets.
func steps() []step {
	of := func(name string, with, without *policy.NetworkPolicy) step {
		put := func(p *policy.NetworkPolicy) func(l *lab) {
			return func(l *lab) {
				l.set(slices.DeleteFunc(slices.Clone(l.world.Policies), func(o policy.NetworkPolicy) bool { return o.Name == name }), nil)
				if p != nil {
					l.set(append(l.world.Policies, *p), nil)
				}
			}
		}
		return step{name, put(with), put(without)}
	}
	in := np("shop", "in", sel("app", "web"), rules(on(from(namespace("team", "money")), tcp(80))), nil)
	out := np("shop", "out", sel("tier", "front"), nil, rules(on(from(both(sel("team", "money"), sel("tier", "back"))), named("http"))))
	narrow, wide := np("bank", "db", all, rules(), nil), np("bank", "db", all, rules(on(from(namespace("team", "sales")), tcp(8080))), nil)
	db := slices.IndexFunc(pods(), func(p policy.Pod) bool { return p.Name == "db" })
	labelled := func(change map[string]string) func(l *lab) {
		return func(l *lab) {
			p := pods()[db]
			maps.Copy(p.Labels, change)
			l.setPod(p)
		}
	}
	team := func(of string) func(l *lab) {
		return func(l *lab) {
			l.setNamespace(policy.Namespace{Name: "bank", Labels: map[string]string{"kubernetes.io/metadata.name": "bank", "team": of}})
		}
	}
	return []step{
		of("in", &in, nil),
		of("out", &out, nil),
		of("db", &wide, &narrow),
		{"pod", labelled(map[string]string{"tier": "front"}), labelled(nil)},
		{"namespace", team("sales"), team("money")},
	}
}

// TestEveryOrder has objects come and change in every order, and go or change
// back in the same one: after each step everybody agrees. All orders in a soak.
func TestEveryOrder(t *testing.T) {
	l := newLab(t)
	orders := permutations(steps())
	list := orders[:min(len(orders), soak.Times(20))]
	if soak.Full() {
		list = orders
	}
	for _, order := range list {
		var names []string
		for _, s := range order {
			names = append(names, s.name)
		}
		t.Run(strings.Join(names, ","), func(t *testing.T) {
			for _, s := range order {
				s.do(l)
				l.sync(t)
				l.agree(t)
			}
			for _, s := range order {
				s.undo(l)
				l.sync(t)
				l.agree(t)
			}
		})
	}
}

// agree asks everybody about the packets that the steps are about; what the
// oracle says counts.
func (l *lab) agree(t *testing.T) {
	t.Helper()
	list := flows(t, "web>db:8080 no, web>db:80 no, db>web:80 no, db>web:8080 no, ops>db:8080 no, api>db:8080 no, web>ops:80 no, host>db:80 no")
	for i, f := range list {
		if l.said(f.packet(false)) {
			list[i].want = yes
		}
	}
	l.judge(t, list)
}

// permutations are all orders of a list.
func permutations[E any](list []E) (all [][]E) {
	if len(list) == 0 {
		return [][]E{nil}
	}
	for i, e := range list {
		for _, rest := range permutations(slices.Delete(slices.Clone(list), i, i+1)) {
			all = append(all, append([]E{e}, rest...))
		}
	}
	return all
}
