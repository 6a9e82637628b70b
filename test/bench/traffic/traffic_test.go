package traffic

import (
	"testing"

	"poplin.dev/poplin/test/bench/traffic/ends"
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
	counter, err := ends.NewClock()
	if err != nil {
		t.Fatal(err)
	}
	place, onWire, onVXLAN, err := l.bare()
	if err != nil {
		t.Fatal(err)
	}
	var ways []*way
	for f := range families {
		for name, at := range map[string]*ends.Server{"wire": onWire[f], "VXLAN": onVXLAN[f]} {
			ways = append(ways, &way{family: familyNames[f], name: name, Client: ends.Client{Place: place, To: at.Addr, At: at, Clock: counter}})
		}
	}
	for _, w := range ways {
		if err := w.open(); err != nil {
			t.Fatalf("%s, %s: %v", w.family, w.name, err)
		}
		for _, kind := range kinds {
			if err := w.turn(kind); err != nil {
				t.Fatal(err)
			}
		}
		for i, figures := range w.turns {
			if len(figures) != 1 || !(figures[0] > 0) {
				t.Errorf("%s, %s: figures of measure %d are %v, want one that is more than 0", w.family, w.name, i, figures)
			}
		}
		t.Log(w.family, w.name, w.turns)
	}
	lost := way{name: "nobody", Client: ends.Client{Place: place, To: bareWire[ipv4][0].Addr(), At: onWire[ipv4], Clock: counter}}
	for _, kind := range kinds {
		if err := lost.turn(kind); err == nil {
			t.Errorf("kind %d: no error though nobody is there", kind)
		}
	}
}
