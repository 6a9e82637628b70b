package policies

import (
	"fmt"
	"maps"
	"reflect"
	"testing"
)

// Equal sets are one, others are what they were, also once too many are known.
func TestLabelSets(t *testing.T) {
	s := labelSets{}
	where := func(m map[string]string) uintptr { return reflect.ValueOf(m).Pointer() }
	first := s.one(map[string]string{"app": "web", "version": "v1"})
	if again := s.one(map[string]string{"version": "v1", "app": "web"}); where(again) != where(first) {
		t.Error("equal sets are kept twice")
	}
	for i := range mostSets + 1 {
		want := map[string]string{"app": fmt.Sprint(i)}
		if got := s.one(maps.Clone(want)); !maps.Equal(got, want) {
			t.Fatalf("%v became %v", want, got)
		}
	}
	if len(s) > mostSets {
		t.Errorf("%d sets are remembered", len(s))
	}
	if got := s.one(map[string]string{"app": "web", "version": "v1"}); !maps.Equal(got, first) {
		t.Errorf("%v became %v", first, got)
	}
}
