package services

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// FuzzUnmarshal: whatever the bytes, there is an error or an object, and a
// name no longer than they are.
func FuzzUnmarshal(f *testing.F) {
	var meta, object []byte
	meta = protowire.AppendTag(meta, 1, protowire.BytesType)
	meta = protowire.AppendString(meta, "web")
	object = protowire.AppendTag(object, 1, protowire.BytesType)
	object = protowire.AppendBytes(object, meta)
	f.Add(object)
	f.Add(object[:len(object)-1])
	f.Fuzz(func(t *testing.T, b []byte) {
		var (
			s serviceObject
			e sliceObject
			r rangeObject
			l sliceList
		)
		for _, o := range []struct {
			err  error
			name *string
		}{{s.Unmarshal(b), &s.Name}, {e.Unmarshal(b), &e.Name}, {r.Unmarshal(b), &r.Name}} {
			if o.err == nil && len(*o.name) > len(b) {
				t.Errorf("a name of %d bytes from %d", len(*o.name), len(b))
			}
		}
		if err := l.Unmarshal(b); err == nil && len(l.Items) > len(b) {
			t.Errorf("%d objects from %d bytes", len(l.Items), len(b))
		}
	})
}
