package cni_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/daemon/ipam"
	"poplin.dev/poplin/plugins/hostlocal/audit"
	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cni"
)

// caretaker runs the daemon's module on a node and returns how many times it
// has looked.
func caretaker(t *testing.T, n *cni.Node, grace time.Duration) (looks func() int) {
	t.Helper()
	passes := make(chan error, 1<<16)
	module := ipam.New(ipam.Deps{
		Network: "pods", DataDir: n.Dir + "/ipam", Cache: n.Dir + "/cache/results", Every: 30 * time.Millisecond, Grace: grace,
		Report: func(_ time.Duration, err error) { passes <- err }, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		var err error
		done <- errors.Join(n.Do(func() { err = module.Run(ctx) }), err)
	}()
	t.Cleanup(func() {
		stop()
		no(t, <-done)
	})
	count := 0
	return func() int {
		for ; len(passes) > 0; count++ {
			<-passes
		}
		return count
	}
}

func waitLooks(t *testing.T, looks func() int, more int) {
	t.Helper()
	before := looks()
	await.Success(t, 30*time.Second, func() error {
		if n := looks() - before; n < more {
			return fmt.Errorf("%d looks", n)
		}
		return nil
	})
}

// holders are the ids of the containers that have reservations.
func holders(t *testing.T, n *cni.Node) (ids []string) {
	t.Helper()
	for _, name := range reservations(t, n) {
		b, err := os.ReadFile(n.Dir + "/ipam/pods/" + name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // released since it was listed
		}
		no(t, err)
		if id, _, _ := strings.Cut(string(b), "\r\n"); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// cut removes a pod's link behind the plugin's back.
func cut(t *testing.T, n *cni.Node, p *cni.Pod, name string) {
	t.Helper()
	no(t, n.Link.LinkDel(link(t, n.Link, name)))
}

// TestOrphansAreReclaimed: those that neither the kernel nor the runtime knows,
// all of each at once, and nobody else's.
func TestOrphansAreReclaimed(t *testing.T) {
	n := node(t)
	nodeAddrs(t, n)
	conf := pods(n, "1.1.0", range4+","+range6, "")
	l := list(t, conf)
	living, unknown, cached, damaged, orphan, half := pod(t), pod(t), pod(t), pod(t), pod(t), pod(t)
	names := map[*cni.Pod]string{}
	for _, p := range []*cni.Pod{living, unknown, cached, damaged, orphan, half} {
		names[p] = add(t, n, l, p).Interfaces[0].Name
	}
	no(t, n.Forget("pods", unknown)) // its link says that it may live
	cut(t, n, cached, names[cached])
	cut(t, n, damaged, names[damaged])
	no(t, os.Truncate(filepath.Join(n.Dir, "cache/results", "pods-"+damaged.ID+"-eth0"), 5))
	cut(t, n, orphan, names[orphan])
	no(t, n.Forget("pods", orphan))
	no(t, n.Forget("pods", half)) // as an ADD leaves it that is killed early
	no(t, n.Link.LinkSetAlias(link(t, n.Link, names[half]), ""))
	no(t, os.WriteFile(n.Dir+"/ipam/pods/10.244.1.200", []byte("of-host-local\r\neth0"), 0o600))
	// A marker that names nobody is for ADD and GC to clear away.
	no(t, os.WriteFile(n.Dir+"/ipam/pods/.owner-busy", nil, 0o600))

	looks := caretaker(t, n, time.Hour)
	waitLooks(t, looks, 5)
	if got := holders(t, n); !slices.Contains(got, orphan.ID) {
		t.Fatalf("released within the grace time: %v", got)
	}
	looks = caretaker(t, n, 100*time.Millisecond)
	want := []string{"", living.ID, unknown.ID, cached.ID, damaged.ID, "of-host-local"}
	slices.Sort(want)
	await.Success(t, 30*time.Second, func() error {
		if got := holders(t, n); !slices.Equal(got, want) {
			return fmt.Errorf("reserved for %q, want %q", got, want)
		}
		return nil
	})
	waitLooks(t, looks, 10)
	if got := holders(t, n); !slices.Equal(got, want) {
		t.Errorf("reserved for %q, want %q", got, want)
	}
	for p, name := range names {
		_, err := n.Link.LinkByName(name)
		if there := err == nil; there != (p == living || p == unknown) {
			t.Errorf("link of %s is there: %v", p.ID, there)
		}
	}
	no(t, n.Check(l, living))
}

// TestOrphanOfWhichAnADDRuns: its marker is locked, so it is left.
func TestOrphanOfWhichAnADDRuns(t *testing.T) {
	n, p := node(t), pod(t)
	l := list(t, pods(n, "1.1.0", range4, ""))
	cut(t, n, p, add(t, n, l, p).Interfaces[0].Name)
	no(t, n.Forget("pods", p))
	no(t, os.WriteFile(n.Dir+"/cache/results/none", nil, 0o600)) // the list is there
	markers, err := filepath.Glob(n.Dir + "/ipam/pods/.owner-*")
	no(t, err)
	f, err := os.Open(markers[0])
	no(t, err)
	no(t, unix.Flock(int(f.Fd()), unix.LOCK_EX))
	looks := caretaker(t, n, 0)
	waitLooks(t, looks, 5)
	if got := reservations(t, n); len(got) != 2 {
		t.Errorf("%v, want address and marker", got)
	}
	f.Close()
	await.Success(t, 30*time.Second, func() error {
		if got := reservations(t, n); len(got) > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// TestNothingIsReclaimedWithoutTheRuntimesList, however sure it looks.
func TestNothingIsReclaimedWithoutTheRuntimesList(t *testing.T) {
	n, p := node(t), pod(t)
	l := list(t, pods(n, "1.1.0", range4, ""))
	cut(t, n, p, add(t, n, l, p).Interfaces[0].Name)
	no(t, os.RemoveAll(n.Dir+"/cache"))
	looks := caretaker(t, n, 0)
	waitLooks(t, looks, 5)
	if got := reservations(t, n); len(got) != 2 {
		t.Errorf("left is %v", got)
	}
}

// TestInspect: the report of a real node, good and bad.
func TestInspect(t *testing.T) {
	n := node(t)
	nodeAddrs(t, n)
	l := list(t, pods(n, "1.1.0", range4+","+range6, ""))
	web, db, old := pod(t), pod(t), pod(t)
	add(t, n, l, web)
	lost := add(t, n, l, db)
	gone := add(t, n, l, old)
	no(t, n.Del(l, old))
	conflist := n.Dir + "/10-pods.conflist"
	no(t, os.WriteFile(conflist, fmt.Appendf(nil, `{"cniVersion":"1.1.0","name":"pods","plugins":[%s]}`, pods(n, "1.1.0", range4+","+range6, "")), 0o600))
	inspect := func() (r audit.Report) {
		var err error
		no(t, n.Do(func() { r, err = ipam.Check(conflist, n.Dir+"/cache/results", time.Millisecond) }))
		no(t, err)
		return r
	}
	r := inspect()
	states := map[string]int{}
	for _, a := range r.Addresses {
		states[a.State]++
		if a.State == audit.Used && !strings.HasPrefix(a.Pod, "default/pod") {
			t.Errorf("%+v", a)
		}
	}
	if len(r.Problems)+len(r.Remarks) > 0 || states[audit.Used] != 4 || states[audit.Resting] != len(gone.IPs) {
		t.Errorf("%+v", r)
	}
	if len(r.Ranges) != 2 || r.Ranges[0].Taken != 2 || r.Ranges[0].Free != "251" {
		t.Errorf("%+v", r.Ranges)
	}
	address := lost.IPs[0].Address.IP.String()
	no(t, os.Remove(n.Dir+"/ipam/pods/"+address))
	r = inspect()
	if len(r.Problems) != 1 || r.Problems[0].Kind != audit.Conflict || !strings.Contains(r.Problems[0].What, address) || !strings.Contains(r.Problems[0].What, "default/"+db.ID) {
		t.Errorf("%+v", r.Problems)
	}
}
