package traffic

import (
	"testing"

	"poplin.dev/poplin/test/need"
)

// Every kind of traffic gets through a wire and a VXLAN device that nobody
// disturbs, is counted, and says what it cost; with nobody at the far end it is
// an error.
func TestEveryKindIsCounted(t *testing.T) {
	need.Root(t)
	need.Link(t, "vxlan")
	l := &lab{}
	l.Dir = t.TempDir()
	defer l.close()
	counter, err := newClock()
	if err != nil {
		t.Fatal(err)
	}
	place, wireEnd, vxlanEnd, err := l.bare()
	if err != nil {
		t.Fatal(err)
	}
	ways := []*way{
		{name: "wire", client: client{place: place, to: wireEnd.addr, at: wireEnd, clock: counter}},
		{name: "VXLAN", client: client{place: place, to: vxlanEnd.addr, at: vxlanEnd, clock: counter}},
	}
	for _, w := range ways {
		if err := w.open(); err != nil {
			t.Fatalf("%s: %v", w.name, err)
		}
		for _, kind := range kinds {
			if err := w.turn(kind); err != nil {
				t.Fatal(err)
			}
		}
		for i, figures := range w.turns {
			if len(figures) != 1 || !(figures[0] > 0) {
				t.Errorf("%s: figures of measure %d are %v, want one that is more than 0", w.name, i, figures)
			}
		}
		t.Log(w.name, w.turns)
	}
	lost := way{name: "nobody", client: client{place: place, to: bareWire[0].Addr(), at: wireEnd, clock: counter}}
	for _, kind := range kinds {
		if err := lost.turn(kind); err == nil {
			t.Errorf("kind %d: no error though nobody is there", kind)
		}
	}
}
