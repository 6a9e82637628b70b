package flow

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// who asks once and returns the place that answered.
func (l *lab) who(t testing.TB, from, to string, proto service.Protocol, port uint16, ipv6 bool) string {
	t.Helper()
	a := l.ask(t, from, to, proto, port, ipv6)
	place, _, ok := strings.Cut(a, ":")
	if !ok {
		t.Fatalf("%s to %s:%d: %s", from, to, port, a)
	}
	return place
}

// TestAffinity: a client stays with its endpoint, by whichever way it comes
// in, until that endpoint goes; and another process takes the memory over.
func TestAffinity(t *testing.T) {
	l := newLab(t)
	sticky := func(o *object) { balanced(o); o.Affinity = time.Hour }
	o := serviceOf(sticky, "pod1", "pod2", "remote")
	l.table.Set(o.Service, o.slices)
	l.sync(t)
	for _, ipv6 := range []bool{false, true} {
		t.Run(fmt.Sprint("IPv6 ", ipv6), func(t *testing.T) {
			stays := func(from, with string) {
				t.Helper()
				for range 8 {
					for _, way := range []struct {
						to   string
						port uint16
					}{{"vip", 80}, {"node", 30080}, {"external", 80}} {
						if got := l.who(t, from, way.to, service.TCP, way.port, ipv6); got != with {
							t.Fatalf("%s by %s: %s answers after %s", from, way.to, got, with)
						}
					}
				}
			}
			first := map[string]string{}
			for _, from := range []string{"client", "stranger", "pod1", "pod2", "node"} {
				first[from] = l.who(t, from, "vip", service.TCP, 80, ipv6)
				stays(from, first[from])
			}
			// Another process takes over.
			l.kernel.Forget()
			if n, err := l.kernel.Set(l.table.Program()); n != 0 || err != nil {
				t.Fatalf("taking over changes %d elements, %v", n, err)
			}
			stays("client", first["client"])
			// An endpoint goes: its clients get another, the others stay.
			left := slices.DeleteFunc([]string{"pod1", "pod2", "remote"}, func(p string) bool { return p == first["client"] })
			o := serviceOf(sticky, left...)
			l.table.Set(o.Service, o.slices)
			l.sync(t)
			for from, with := range first {
				if with == first["client"] {
					with = l.who(t, from, "vip", service.TCP, 80, ipv6)
				}
				stays(from, with)
			}
			// Without affinity everyone meets everyone.
			o = serviceOf(balanced, "pod1", "pod2", "remote")
			l.table.Set(o.Service, o.slices)
			l.sync(t)
			if got := l.survey(t, "client", "vip", service.TCP, 80, ipv6); got != anyone {
				t.Errorf("affinity is off, and the client meets %s", got)
			}
			o = serviceOf(sticky, "pod1", "pod2", "remote")
			l.table.Set(o.Service, o.slices)
			l.sync(t)
		})
	}
}

// TestAffinityToTheNodeItself: such packets are delivered and leave by no
// device, so they are remembered on another way.
func TestAffinityToTheNodeItself(t *testing.T) {
	l := newLab(t)
	o := serviceOf(func(o *object) { o.Affinity = time.Hour }, "node", "pod1")
	l.table.Set(o.Service, o.slices)
	l.sync(t)
	met := map[string]bool{}
	for _, from := range []string{"client", "stranger", "pod2", "remote", "node"} {
		for _, ipv6 := range []bool{false, true} {
			first := l.who(t, from, "vip", service.TCP, 80, ipv6)
			met[first] = true
			for range 12 {
				if got := l.who(t, from, "vip", service.TCP, 80, ipv6); got != first {
					t.Errorf("%s met %s and then %s", from, first, got)
				}
			}
		}
	}
	if !met["node"] { // ten clients, half a chance each: once in a thousand runs
		t.Log("by chance nobody met the node: this run showed less")
	}
}

// TestAffinityEnds: whoever stays away for the whole time is forgotten.
func TestAffinityEnds(t *testing.T) {
	l := newLab(t)
	o := serviceOf(func(o *object) { o.Affinity = time.Second }, "pod1", "pod2", "remote")
	l.table.Set(o.Service, o.slices)
	l.sync(t)
	met := map[string]bool{}
	deadline := time.Now().Add(30 * time.Second)
	for len(met) < 2 && time.Now().Before(deadline) {
		met[l.who(t, "client", "vip", service.TCP, 80, false)] = true
		time.Sleep(1100 * time.Millisecond) // the time itself is what is tested
	}
	if len(met) < 2 {
		t.Errorf("the client never met another endpoint than %v", met)
	}
}
