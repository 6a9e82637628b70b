package oracle_test

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/test/oracle"
)

var seed = flag.Uint64("seed", uint64(time.Now().UnixNano()), "of the random operations")

// run is a world that changes, the table that follows it, and a mirror that
// got nothing but the table's changes, as the kernel does.
type run struct {
	dice
	world    oracle.World
	services map[service.Key]service.Service
	slices   map[service.Key]service.Slice // by their own name
	table    *services.Table
	mirror   vip.Program
	dirty    map[service.Key]bool
	lie      lie
}

func start(seed uint64, l lie) *run {
	w := world()
	return &run{
		dice: dice{rand.New(rand.NewPCG(seed, 1))}, world: w, lie: l,
		services: map[service.Key]service.Service{}, slices: map[service.Key]service.Slice{},
		table: services.NewTable(node(w), vip.New()), mirror: vip.New(), dirty: map[service.Key]bool{},
	}
}

// step changes one object and tells the table sooner or later.
func (r *run) step() {
	switch n := r.IntN(20); {
	case n < 7:
		s := r.service()
		r.services[s.Key] = s
		r.dirty[s.Key] = true
	case n < 9:
		k := r.key()
		delete(r.services, k)
		r.dirty[k] = true
	case n < 17:
		s := r.slice(r.key())
		r.slices[s.Key] = s
		r.dirty[service.Key{Namespace: s.Namespace, Name: s.Service}] = true
	case n < 19:
		s := r.slice(r.key())
		delete(r.slices, s.Key)
		r.dirty[service.Key{Namespace: s.Namespace, Name: s.Service}] = true
	case r.one(5):
		r.world.Zone = pick(r.dice, "east", "west", "")
		r.world.NodePortAddresses = r.world.NodePortAddresses[:1+r.IntN(3)]
		if r.one(2) {
			r.world.NodePortAddresses = world().NodePortAddresses
		}
		r.world.Allocated = pick(r.dice, world().Allocated,
			[]netip.Prefix{netip.MustParsePrefix("10.96.0.0/29"), netip.MustParsePrefix("10.96.0.8/29")},
			[]netip.Prefix{netip.MustParsePrefix("10.96.0.0/29"), netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("fd00:96::/64")})
		r.table.SetNode(node(r.world))
		for k := range r.services {
			r.dirty[k] = true
		}
	}
}

// flush ends a batch.
func (r *run) flush() vip.Change {
	for _, k := range slices.SortedFunc(maps.Keys(r.dirty), service.Key.Compare) {
		r.tell(r.table, k)
	}
	clear(r.dirty)
	c := r.table.Take()
	c.Apply(r.mirror)
	r.world.Services = slices.Collect(maps.Values(r.services))
	r.world.Slices = slices.Collect(maps.Values(r.slices))
	return c
}

func (r *run) tell(t *services.Table, k service.Key) {
	s, ok := r.services[k]
	if !ok {
		if !r.lie.keeps {
			t.Delete(k)
		}
		return
	}
	t.Set(r.lie.aboutService(s), r.slicesOf(k))
}

func (r *run) slicesOf(k service.Key) []service.Slice {
	var list []service.Slice
	for _, slice := range r.slices {
		if slice.Namespace == k.Namespace && slice.Service == k.Name {
			list = append(list, r.lie.aboutSlice(slice))
		}
	}
	return list
}

// likely is a packet that is more often than not for a front that exists.
func (r *run) likely() oracle.Packet {
	p := r.packet()
	if r.one(3) || len(r.mirror.Frontends) == 0 {
		return p
	}
	fronts := slices.SortedFunc(maps.Keys(r.mirror.Frontends), func(a, b vip.Front) int { return strings.Compare(a.String(), b.String()) })
	f := pick(r.dice, fronts...)
	for p.Dst.Is4() != f.Addr.Is4() {
		p = r.packet()
	}
	p.Dst, p.Proto, p.Port = f.Addr, f.Proto, f.Port
	return p
}

// check compares one packet's fate.
func (r *run) check(p oracle.Packet) error {
	origin := trace.FromOutside
	switch {
	case p.FromPod:
		origin = trace.FromPod
	case p.FromNode:
		origin = trace.FromNode
	}
	got := trace.Service(r.mirror, r.world.NodeAddresses, trace.Packet{Origin: origin, Src: p.Src, Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto})
	want := r.world.Ask(p)
	fate := func(refuse, drop bool, to map[netip.AddrPort]bool, sticky time.Duration) string {
		return fmt.Sprint("refuse ", refuse, " drop ", drop, " to ", to, " sticky ", sticky)
	}
	to := map[netip.AddrPort]bool{}
	for _, e := range got.Endpoints {
		to[e.Addr] = e.Masquerade
	}
	g := fate(got.Action == trace.Refuse, got.Action == trace.Drop, to, time.Duration(got.Sticky)*time.Second)
	w := fate(want.Refuse, want.Drop, want.To, want.Sticky)
	if g != w || len(to) != len(got.Endpoints) {
		return fmt.Errorf("packet %+v:\n got %s\nwant %s\nsteps %q", p, g, w, got.Steps)
	}
	return nil
}

// TestRandomOperations: whatever the order of changes, at the end of each
// batch the kernel's maps say what the API's objects mean.
func TestRandomOperations(t *testing.T) {
	operations := 5000
	if os.Getenv("POPLIN_SOAK") == "1" {
		operations = 100000
	}
	t.Logf("-seed %d", *seed)
	r := start(*seed, lie{})
	met := map[trace.Action]int{}
	for i := range operations {
		r.step()
		if !r.one(3) {
			continue
		}
		r.flush()
		if got, want := r.mirror.String(), r.table.Program().String(); i%50 == 0 && got != want {
			t.Fatalf("operation %d: changes add up to\n%s\nbut the program is\n%s", i, got, want)
		}
		for range 20 {
			p := r.likely()
			if err := r.check(p); err != nil {
				t.Fatalf("operation %d (-seed %d): %v", i, *seed, err)
			}
			met[trace.Service(r.mirror, r.world.NodeAddresses, trace.Packet{Dst: netip.AddrPortFrom(p.Dst, p.Port), Proto: p.Proto, Src: p.Src}).Action]++
		}
		if err := whole(r.mirror); err != nil {
			t.Fatalf("operation %d (-seed %d): %v", i, *seed, err)
		}
		if r.one(100) {
			restart(t, r)
		}
	}
	t.Logf("packets: %v, elements at the end: %d", met, r.mirror.Len())
	for _, a := range []trace.Action{trace.Pass, trace.Forward, trace.Refuse, trace.Drop} {
		if met[a] < operations/200 {
			t.Errorf("only %d packets met %q: the world is too poor", met[a], a)
		}
	}
}

// whole holds a program to its own promise: every slot that can be drawn is
// there.
func whole(p vip.Program) error {
	for _, m := range []map[vip.Front]vip.Value{p.Frontends, p.Outside} {
		for f, v := range m {
			for i := range v.Count() {
				s := vip.Slot{Group: v.Group(), Index: uint32(i)}
				if a, ok := p.Endpoints[s]; !ok || a.Addr().Is4() != f.Addr.Is4() {
					return fmt.Errorf("front %s draws slot %s, which is %v", f, s, a)
				}
			}
		}
	}
	return nil
}

// restart: a table that starts with what the kernel holds comes to the same
// program, numbers and slots included, in whatever order it hears of objects.
func restart(t *testing.T, r *run) {
	t.Helper()
	again := services.NewTable(node(r.world), r.mirror)
	fresh := services.NewTable(node(r.world), vip.New())
	again.SetAll(slices.Collect(maps.Values(r.services)), r.slicesOf)
	for k := range r.services {
		r.tell(fresh, k)
	}
	c := vip.Diff(drawn(r.mirror), drawn(again.Program()))
	if !c.Empty() {
		t.Fatalf("-seed %d: a restart changes the kernel: delete\n%sput\n%s", *seed, c.Delete, c.Put)
	}
	if got, want := normal(r.mirror), normal(fresh.Program()); got != want {
		t.Fatalf("-seed %d: step by step\n%s\nat once\n%s", *seed, got, want)
	}
}

// drawn leaves out the groups of Services that have lost all their fronts to
// older ones: nothing tells whose they were.
func drawn(p vip.Program) vip.Program {
	groups := map[uint32]bool{}
	for _, m := range []map[vip.Front]vip.Value{p.Frontends, p.Outside} {
		for _, v := range m {
			groups[v.Group()] = true
		}
	}
	all := p.Endpoints
	p.Endpoints = map[vip.Slot]netip.AddrPort{}
	for s, a := range all {
		if groups[s.Group] {
			p.Endpoints[s] = a
		}
	}
	return p
}

// normal is a program without the numbers of groups and slots.
func normal(p vip.Program) string {
	var lines []string
	for name, m := range map[string]map[vip.Front]vip.Value{"in": p.Frontends, "out": p.Outside} {
		for f, v := range m {
			var to []string
			for i := range v.Count() {
				to = append(to, p.Endpoints[vip.Slot{Group: v.Group(), Index: uint32(i)}].String())
			}
			slices.Sort(to)
			lines = append(lines, fmt.Sprint(name, f, to, v.IsMasqueraded(), v.IsSticky(), v.Count() == 0 && v == vip.Drop, p.Timeouts[f]))
		}
	}
	slices.Sort(lines)
	rest := p
	rest.Frontends, rest.Outside, rest.Endpoints = nil, nil, nil
	return fmt.Sprint(lines, rest)
}
