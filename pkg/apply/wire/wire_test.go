package wire

import (
	"bytes"
	"testing"
)

// FuzzFind reads what no kernel sends: what is found lies within it.
func FuzzFind(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 4, 0, 2, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0})
	f.Add([]byte{8, 0, 1, 128, 0, 0, 0, 7})
	f.Fuzz(func(t *testing.T, b []byte) {
		for kind, v := range Each(b) {
			if !bytes.Contains(b, v) || kind > typeMask {
				t.Fatalf("attribute %d with %v is not of %v", kind, v, b)
			}
		}
		found := Find(b, 1, 2)
		if len(found) > len(b) {
			t.Errorf("found %d bytes in %d", len(found), len(b))
		}
		_, _ = String(found), Number(found)
	})
}
