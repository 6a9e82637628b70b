package podlink

import (
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/need"
)

const podGroup = 0x706c

// pods puts the test into a network namespace of its own with so many links
// of pods, the ends of one pair each.
func pods(t testing.TB, n int) *Reader {
	t.Helper()
	need.Link(t, "veth")
	runtime.LockOSThread() // never unlocked: the thread goes with the test
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	// The pods' ends are elsewhere, as they always are.
	far, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() }) // the links go with it
	if err := netns.Set(ns); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group, attrs.MTU = fmt.Sprintf("plw%d", i), podGroup, 1400+i
		if err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("far%d", i), PeerNamespace: netlink.NsFd(int(far))}); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return r
}

// TestList: what the list of links says is what the files say.
func TestList(t *testing.T) {
	r := pods(t, 3)
	for _, s := range []struct{ family, name string }{
		{"ipv4", "forwarding"}, {"ipv4", "rp_filter"}, {"ipv4", "send_redirects"}, {"ipv4", "accept_redirects"},
		{"ipv6", "accept_ra"}, {"ipv6", "accept_redirects"}, {"ipv6", "autoconf"},
	} {
		for _, value := range []int{0, 1} {
			path := fmt.Sprintf("/proc/sys/net/%s/conf/plw1/%s", s.family, s.name)
			if err := os.WriteFile(path, fmt.Append(nil, value), 0); err != nil {
				t.Fatal(err)
			}
			links, err := r.List(podGroup)
			if err != nil || len(links) != 3 {
				t.Fatalf("%d links, %v", len(links), err)
			}
			for _, l := range links {
				if l.Name() != "plw1" {
					continue
				}
				if got, known := l.Setting(s.family, s.name); got != value || !known || l.MTU != 1401 {
					t.Errorf("%s: got %d (%v), MTU %d, want %d", path, got, known, l.MTU, value)
				}
			}
		}
	}
	if _, known := (Link{}).Setting("ipv4", "rp_filter"); known {
		t.Error("a link without arrays has a setting")
	}
}

// TestListLeavesNoGarbage: whoever asks every second must not pay for
// collections.
func TestListLeavesNoGarbage(t *testing.T) {
	r := pods(t, 110) // answers in several parts
	if n := testing.AllocsPerRun(20, func() {
		links, err := r.List(podGroup)
		if err != nil || len(links) != 110 {
			t.Fatal(len(links), err)
		}
		for _, l := range links {
			l.Setting("ipv4", "rp_filter")
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkList is what looking at the sysctls of a full node costs.
func BenchmarkList(b *testing.B) {
	r := pods(b, 110)
	b.ReportAllocs()
	before := cpu(b)
	for b.Loop() {
		links, err := r.List(podGroup)
		if err != nil || len(links) != 110 {
			b.Fatal(len(links), err)
		}
		for _, l := range links {
			l.Setting("ipv4", "rp_filter")
		}
	}
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-us/op")
}

// cpu is the processor time that the process has used.
func cpu(t testing.TB) time.Duration {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
