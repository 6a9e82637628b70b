package store

import (
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/containernetworking/plugins/plugins/ipam/host-local/backend/disk"

	"poplin.dev/poplin/plugins/hostlocal/allocator"
)

// A node may move over from upstream's host-local and back with its pods
// running, so each must read and keep what the other wrote.

// rival opens upstream's store on the directory of ours.
func rival(t *testing.T, d *Store) *disk.Store {
	t.Helper()
	s, err := disk.New(filepath.Base(d.Dir), filepath.Dir(d.Dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func pickFrom(t *testing.T, subnet string) []Pick {
	t.Helper()
	r, err := allocator.NewRange(netip.MustParsePrefix(subnet), netip.Addr{}, netip.Addr{}, netip.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	return []Pick{allocator.Set{r}.After}
}

func TestUpstreamReadsOurs(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "pods"))
	got, _, err := d.Reserve(Owner{"pod-a", "eth0"}, pickFrom(t, "10.9.0.0/24"))
	if err != nil {
		t.Fatal(err)
	}
	up, ip := rival(t, d), net.IP(got[0].AsSlice())
	if !up.FindByID("pod-a", "eth0") {
		t.Error("upstream does not find our reservation")
	}
	if ips := up.GetByID("pod-a", "eth0"); len(ips) != 1 || !ips[0].Equal(ip) {
		t.Errorf("upstream finds addresses %v, want %s alone", ips, ip)
	}
	if last, err := up.LastReservedIP("0"); err != nil || !last.Equal(ip) {
		t.Errorf("upstream reads the last address as %v, %v", last, err)
	}
	if ok, err := up.Reserve("pod-b", "eth0", ip, "0"); ok || err != nil {
		t.Errorf("upstream could reserve our %s: %v, %v", ip, ok, err)
	}
	if err := up.ReleaseByID("pod-a", "eth0"); err != nil {
		t.Error(err)
	}
	if d.Holds(Owner{"pod-a", "eth0"}, got[0]) {
		t.Error("upstream released it, and we still see it")
	}
	if _, _, err := d.Reserve(Owner{"pod-a", "eth0"}, pickFrom(t, "10.9.0.0/24")); err != nil {
		t.Errorf("upstream's release left something: %v", err)
	}
}

func TestWeReadUpstreams(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "pods"))
	up := rival(t, d)
	taken := netip.MustParseAddr("10.9.0.2")
	if ok, err := up.Reserve("pod-a", "eth0", taken.AsSlice(), "0"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if !d.Holds(Owner{"pod-a", "eth0"}, taken) {
		t.Error("we do not see upstream's reservation")
	}
	if got, _, err := d.Reserve(Owner{"pod-b", "eth0"}, pickFrom(t, "10.9.0.0/24")); err != nil || got[0] == taken {
		t.Errorf("got %v, %v with %s taken by upstream", got, err, taken)
	}
	if err := d.Release(Owner{"pod-a", "eth0"}, nil, 1); err != nil {
		t.Error(err)
	}
	if up.FindByID("pod-a", "eth0") {
		t.Error("we released upstream's reservation, and it is still there")
	}
}

// Both at once never give one address twice.
func TestUpstreamAtTheSameTime(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "pods"))
	const each = 40
	var (
		mu    sync.Mutex // guards given
		given []netip.Addr
		wg    sync.WaitGroup
	)
	add := func(a netip.Addr) {
		mu.Lock()
		defer mu.Unlock()
		given = append(given, a)
	}
	picks := pickFrom(t, "10.9.0.0/24")
	up := rival(t, d)
	wg.Go(func() {
		for i := range each {
			got, _, err := d.Reserve(Owner{fmt.Sprintf("ours-%d", i), "eth0"}, picks)
			if err != nil {
				t.Error(err)
				return
			}
			add(got[0])
		}
	})
	wg.Go(func() {
		for i := range each {
			if a, err := upstreamReserve(up, fmt.Sprintf("theirs-%d", i)); err != nil {
				t.Error(err)
				return
			} else {
				add(a)
			}
		}
	})
	wg.Wait()
	slices.SortFunc(given, netip.Addr.Compare)
	if n := len(slices.Compact(slices.Clone(given))); n != 2*each || len(given) != 2*each {
		t.Errorf("%d addresses given, %d of them different, want %d", len(given), n, 2*each)
	}
}

// upstreamReserve takes the first free address under upstream's lock, as its
// allocator does.
func upstreamReserve(up *disk.Store, id string) (netip.Addr, error) {
	if err := up.Lock(); err != nil {
		return netip.Addr{}, err
	}
	defer up.Unlock()
	for a := netip.MustParseAddr("10.9.0.2"); a.Compare(netip.MustParseAddr("10.9.0.255")) < 0; a = a.Next() {
		ok, err := up.Reserve(id, "eth0", a.AsSlice(), "0")
		if ok || err != nil {
			return a, err
		}
	}
	return netip.Addr{}, fmt.Errorf("no address for %s", id)
}
