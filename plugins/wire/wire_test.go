package wire

import (
	"bytes"
	"testing"
)

func TestAttrs(t *testing.T) {
	var w Attrs
	w.Text(1, "eth0")
	w.Nest(2, func() { w.Net(3, 7); w.Host(4, 9) })
	if got := string(Find(w, 1)); got != "eth0\x00" {
		t.Errorf("text %q", got)
	}
	if got := Find(w, 2, 3); !bytes.Equal(got, []byte{0, 0, 0, 7}) {
		t.Errorf("number %v", got)
	}
	if Find(w, 2, 5) != nil || Find(w, 6, 1) != nil {
		t.Error("found what is not there")
	}
}

// FuzzFind reads what no kernel sends.
func FuzzFind(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 4, 0, 2, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if found := Find(b, 1, 2); len(found) > len(b) {
			t.Errorf("found %d bytes in %d", len(found), len(b))
		}
		if len(b) >= 16 {
			if m, rest := cut(b); len(m)+len(rest) > len(b) {
				t.Errorf("cut %d bytes into %d and %d", len(b), len(m), len(rest))
			}
			_ = failure(b)
		}
	})
}
