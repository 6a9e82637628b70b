package masquerade

import (
	"net/netip"
	"testing"

	"poplin.dev/poplin/test/golden"
)

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// TestCompile: prefixes within others are left out, in whatever order they
// come, because the kernel refuses overlapping intervals.
func TestCompile(t *testing.T) {
	got := Compile(
		prefixes("10.244.1.0/24", "fd00:10:244:1::/64"),
		prefixes("10.244.2.0/24", "10.244.1.0/24", "10.244.1.0/24", "198.51.100.7/32", "10.244.0.0/16", "fd00:10:244:2::/64",
			"198.51.100.0/25", "fd00:10:244:1::/64", "239.0.0.0/8"),
		8472,
	).String()
	golden.Equal(t, "testdata/dual.golden", got)
}

func TestPortsBeside(t *testing.T) {
	for _, tt := range []struct{ overlay, low, high uint16 }{
		{8472, 8473, 65535}, {4789, 4790, 65535}, {65535, 1024, 65534}, {40000, 1024, 39999}, {500, 1024, 65535},
	} {
		if p := portsBeside(tt.overlay); p.Low != tt.low || p.High != tt.high {
			t.Errorf("overlay port %d: %d to %d, want %d to %d", tt.overlay, p.Low, p.High, tt.low, tt.high)
		}
	}
}
