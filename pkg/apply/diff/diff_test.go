package diff

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"strings"
	"testing"
)

func addr(i int) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}) }

func TestPutAndRemove(t *testing.T) {
	have := map[netip.Addr]string{addr(1): "same", addr(2): "old", addr(3): "stale", addr(4): "stuck"}
	want := map[netip.Addr]string{addr(1): "same", addr(2): "new", addr(5): "added", addr(6): "refused", addr(7): "after"}
	var log []string
	var later []func() // what was gathered
	do := func(verb string) Write[netip.Addr, string] {
		return func(k netip.Addr, v string, done func(error)) {
			log = append(log, fmt.Sprint(verb, " ", k, " ", v))
			later = append(later, func() {
				if v == "refused" || v == "stuck" {
					done(errors.New(v))
					return
				}
				done(nil)
			})
		}
	}
	var p Pass
	Put(&p, have, want, do("add"), do("change"))
	Remove(&p, have, want, do("remove"))
	if !p.Zero() || p.Err() != nil || have[addr(2)] != "old" {
		t.Errorf("before anything was written: %+v, %v, %v", p.Result, p.Err(), have)
	}
	for _, f := range later {
		f()
	}
	if err := p.Err(); err == nil || err.Error() != "refused\nstuck" {
		t.Errorf("error %v", err)
	}
	if got := p.Result; got != (Result{Added: 2, Changed: 1, Removed: 1, Failed: 2}) {
		t.Errorf("result %+v", got)
	}
	if got := strings.Join(log, "\n"); got != strings.TrimSpace(`
change 10.0.0.2 new
add 10.0.0.5 added
add 10.0.0.6 refused
add 10.0.0.7 after
remove 10.0.0.3 stale
remove 10.0.0.4 stuck`) {
		t.Errorf("calls:\n%s", got)
	}
	// What is now true: failures are not in, what could not be removed still is.
	now := map[netip.Addr]string{addr(1): "same", addr(2): "new", addr(4): "stuck", addr(5): "added", addr(7): "after"}
	if !maps.Equal(have, now) {
		t.Errorf("have %v, want %v", have, now)
	}
	log = nil
	delete(want, addr(6))
	want[addr(4)] = "stuck"
	var again Pass
	if Put(&again, have, want, do("add"), do("change")); again.Err() != nil || !again.Zero() || len(log) > 0 {
		t.Errorf("nothing to do, but %+v %v %v", again.Result, again.Err(), log)
	}
}

func BenchmarkPut(b *testing.B) {
	for _, n := range []int{1000, 5000} {
		have, want := map[netip.Addr]int{}, map[netip.Addr]int{}
		for i := range n {
			have[addr(i)], want[addr(i)] = i, i
		}
		b.Run(fmt.Sprintf("one-of-%d", n), func(b *testing.B) {
			b.ReportAllocs()
			fine := Now(func(netip.Addr, int) error { return nil })
			for b.Loop() {
				want[addr(0)]++
				var p Pass
				if Put(&p, have, want, fine, fine); p.Changed != 1 {
					b.Fatal(p.Result)
				}
			}
		})
	}
}
