package config

import (
	"slices"
	"testing"
)

func TestChanges(t *testing.T) {
	a, b := Default(), Default()
	if got := Changes(a, b); got != nil {
		t.Errorf("equal, but %v", got)
	}
	b.LogLevel, b.Overlay.MTU, b.CNI.Capabilities, b.Masquerade.ExcludeCIDRs = 4, 1400, nil, nil
	var paths, live []string
	for _, k := range Changes(a, b) {
		paths = append(paths, k.Path)
		if k.Live() {
			live = append(live, k.Path)
		}
	}
	if want := []string{"logLevel", "overlay.mtu", "cni.capabilities"}; !slices.Equal(paths, want) {
		t.Errorf("got %v, want %v", paths, want)
	}
	if want := []string{"logLevel"}; !slices.Equal(live, want) {
		t.Errorf("live are %v, want %v", live, want)
	}
}

// A tag that cannot be read would refuse every value, or none.
func TestTags(t *testing.T) {
	for _, k := range Keys() {
		if err := k.check(k.Default); err != nil {
			t.Errorf("%s: the default is refused: %v", k.Path, err)
		}
		if least, _ := k.Range(); least != "" && !k.Default.CanInt() {
			t.Errorf("%s has a range, and is no number", k.Path)
		}
	}
}
