package allocator

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func rng(t *testing.T, subnet, first, last, gateway string) Range {
	t.Helper()
	r, err := newRange(subnet, first, last, gateway)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newRange(subnet, first, last, gateway string) (Range, error) {
	var a [3]netip.Addr
	for i, s := range []string{first, last, gateway} {
		if s != "" {
			a[i] = netip.MustParseAddr(s)
		}
	}
	p, _ := netip.ParsePrefix(subnet)
	return NewRange(p, a[0], a[1], a[2])
}

func TestWhatARangeGives(t *testing.T) {
	for _, row := range []struct {
		subnet, first, last, gateway string
		want                         string
	}{
		{"10.1.0.0/29", "", "", "", "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6"},
		{"10.1.0.0/29", "", "", "10.1.0.6", "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5"},
		{"10.1.0.0/29", "10.1.0.1", "10.1.0.3", "10.1.0.6", "10.1.0.1 10.1.0.2 10.1.0.3"},
		{"10.1.0.0/29", "10.1.0.0", "10.1.0.7", "", "10.1.0.2 10.1.0.3 10.1.0.4 10.1.0.5 10.1.0.6"},
		{"10.1.0.0/30", "", "", "", "10.1.0.2"},
		{"fd00::/125", "", "", "", "fd00::2 fd00::3 fd00::4 fd00::5 fd00::6 fd00::7"},
		{"fd00::/126", "", "", "", "fd00::2 fd00::3"},
		{"255.255.255.248/29", "", "", "", "255.255.255.250 255.255.255.251 255.255.255.252 255.255.255.253 255.255.255.254"},
	} {
		var got []string
		for a := range (Set{rng(t, row.subnet, row.first, row.last, row.gateway)}).After(netip.Addr{}) {
			got = append(got, a.String())
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%v gives %s, want %s", row, s, row.want)
		}
	}
}

func TestASlash24Holds253(t *testing.T) {
	n := 0
	for range (Set{rng(t, "10.244.1.0/24", "", "", "")}).After(netip.Addr{}) {
		n++
	}
	if n != 253 {
		t.Errorf("%d addresses, want 253", n)
	}
}

func TestRoundRobin(t *testing.T) {
	s := Set{rng(t, "10.1.0.0/29", "", "", ""), rng(t, "10.2.0.0/30", "", "", ""), rng(t, "10.3.0.0/30", "", "", "")}
	all := []string{"10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.2.0.2", "10.3.0.2"}
	for i, last := range append([]string{"192.0.2.1"}, all...) {
		var got []string
		for a := range s.After(netip.MustParseAddr(last)) {
			got = append(got, a.String())
		}
		at := i % len(all)
		if want := slices.Concat(all[at:], all[:at]); !slices.Equal(got, want) {
			t.Errorf("after %s: %v, want %v", last, got, want)
		}
	}
}

func TestLargeRangesAreNotListed(t *testing.T) {
	for a := range (Set{rng(t, "fd00::/64", "", "", "")}).After(netip.MustParseAddr("fd00::ffff:ffff")) {
		if a.String() != "fd00::1:0:0" {
			t.Errorf("got %s", a)
		}
		break
	}
}

func TestRefusedRanges(t *testing.T) {
	for _, row := range [][5]string{
		{"", "", "", "", "subnet: missing"},
		{"10.1.0.0/31", "", "", "", "too small"},
		{"fd00::/127", "", "", "", "too small"},
		{"10.1.0.1/24", "", "", "", "write 10.1.0.0/24"},
		{"::ffff:10.1.0.0/120", "", "", "", "IPv4 written as IPv6"},
		{"10.1.0.0/24", "10.2.0.1", "", "", "rangeStart: 10.2.0.1"},
		{"10.1.0.0/24", "", "fd00::1", "", "rangeEnd: fd00::1"},
		{"10.1.0.0/24", "10.1.0.9", "10.1.0.8", "", "comes before"},
	} {
		if _, err := newRange(row[0], row[1], row[2], row[3]); err == nil || !strings.Contains(err.Error(), row[4]) {
			t.Errorf("%v: %v", row, err)
		}
	}
}

func TestRefusedSets(t *testing.T) {
	a, b := rng(t, "10.1.0.0/24", "", "", ""), rng(t, "fd00::/64", "", "", "")
	for want, s := range map[string]Set{
		"holds no range":      {},
		"mixes IPv4 and IPv6": {a, b},
		"overlaps":            {a, rng(t, "10.1.0.0/16", "", "", "")},
	} {
		if err := s.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: %v, want %q", s, err, want)
		}
	}
	if err := (Set{a, rng(t, "10.1.1.0/24", "", "", "")}).Validate(); err != nil {
		t.Error(err)
	}
}

func FuzzRange(f *testing.F) {
	f.Add("10.244.1.0/24", "10.244.1.9", "10.244.1.20", "", "10.244.1.15")
	f.Add("fd00::/120", "", "", "fd00::ff", "fd00::1")
	f.Add("0.0.0.0/0", "", "", "", "255.255.255.255")
	f.Add("::/0", "", "", "", "ffff::")
	f.Fuzz(func(t *testing.T, subnet, first, last, gateway, after string) {
		p, err := netip.ParsePrefix(subnet)
		if err != nil {
			return
		}
		var a [4]netip.Addr
		for i, s := range []string{first, last, gateway, after} {
			a[i], _ = netip.ParseAddr(s)
		}
		r, err := NewRange(p, a[0], a[1], a[2])
		if err != nil {
			return
		}
		seen, n := map[netip.Addr]bool{}, 0
		for got := range (Set{r}).After(a[3]) {
			if seen[got] || !p.Contains(got) || got == p.Addr() || got == r.Gateway {
				t.Fatalf("%v after %s gives %s", r, after, fmt.Sprint(got))
			}
			seen[got] = true
			if n++; n > 300 {
				break
			}
		}
	})
}
