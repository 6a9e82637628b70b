package cni_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cni"
)

// TestStatusSaysWhyAddWouldFail; and ADD agrees, unless it needs a pod to tell.
func TestStatusSaysWhyAddWouldFail(t *testing.T) {
	tiny := `[{"subnet":"10.244.1.0/29"}]`
	for name, row := range map[string]struct {
		ranges, more string
		before       func(*testing.T, *cni.Node)
		code         uint
		texts        []string
	}{
		"well":         {range4 + "," + range6, "", nil, 0, nil},
		"no range":     {"", "", nil, 50, []string{"ipam.ranges"}},
		"wrong range":  {`[{"subnet":"10.244.1.7/24"}]`, "", nil, 50, []string{"10.244.1.0/24"}},
		"unknown key":  {range4, `"mut":1450,`, nil, 50, []string{"mut: unknown key"}},
		"last address": {range6 + "," + tiny, "", take(4), 0, nil},
		"no address":   {range6 + "," + tiny, "", take(5), 50, []string{"no free address", "10.244.1.2-10.244.1.7"}},
		"last has a file for nobody": {tiny, "", func(t *testing.T, n *cni.Node) {
			take(4)(t, n)
			no(t, os.WriteFile(n.Dir+"/ipam/pods/10.244.1.6", nil, 0o600))
		}, 0, nil},
		"reservation of a living pod is spoiled": {tiny, "", func(t *testing.T, n *cni.Node) {
			take(5)(t, n)
			no(t, os.Truncate(n.Dir+"/ipam/pods/10.244.1.6", 0))
		}, 50, []string{"no free address"}},
		"not ready since boot": {range4, `"readyFile":"/no/such/ready",`, nil, 51, []string{"/no/such/ready", "poplind has not been ready since this node started"}},
		"not ready any more":   {range4, `"readyFile":"/proc/sys/kernel/ostype",`, nil, 51, []string{"Linux"}},
		"ready":                {range4, `"readyFile":"/dev/null",`, nil, 0, nil},
		"read-only":            {range4, "", mount(unix.MS_RDONLY, ""), 50, []string{"read-only"}},
		"full":                 {range4, "", mount(0, "size=4k,nr_inodes=4"), 50, []string{"no space left"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := node(t)
			if row.before != nil {
				row.before(t, n)
			}
			conf := pods(n, "1.1.0", row.ranges, row.more)
			for range 2 {
				out, err := n.Exec("poplin", conf, "CNI_COMMAND=STATUS")
				if row.code == 0 && err != nil {
					t.Errorf("%v, %s", err, out)
				} else if row.code != 0 {
					refused(t, out, err, row.code, row.texts...)
				}
			}
			p := pod(t)
			if _, err := n.Add(list(t, conf), p); (err == nil) != (row.code == 0 || row.code == 51) {
				t.Errorf("STATUS answers %d, and ADD %v", row.code, err)
			}
		})
	}
}

// take attaches so many pods in a /29 first.
func take(count int) func(*testing.T, *cni.Node) {
	return func(t *testing.T, n *cni.Node) {
		for range count {
			add(t, n, list(t, pods(n, "1.1.0", `[{"subnet":"10.244.1.0/29"}]`, "")), pod(t))
		}
	}
}

// mount puts a filesystem of its own where reservations are.
func mount(flags uintptr, options string) func(*testing.T, *cni.Node) {
	return func(t *testing.T, n *cni.Node) {
		no(t, os.Mkdir(n.Dir+"/ipam", 0o755))
		no(t, unix.Mount("poplin-test", n.Dir+"/ipam", "tmpfs", 0, options))
		t.Cleanup(func() { no(t, unix.Unmount(n.Dir+"/ipam", unix.MNT_DETACH)) })
		if flags != 0 {
			no(t, unix.Mount("", n.Dir+"/ipam", "", flags|unix.MS_REMOUNT, options))
		}
	}
}

// TestDiskFullOrReadOnly: ADD says so with a code that lets the runtime try
// again, and leaves nothing; DEL frees as soon as it can.
func TestDiskFullOrReadOnly(t *testing.T) {
	n := node(t)
	mount(0, "size=64k")(t, n)
	conf := pods(n, "1.1.0", range4+","+range6, "")
	l := list(t, conf)
	first, second := pod(t), pod(t)
	add(t, n, l, first)
	before := fmt.Sprint(reservations(t, n), state(t, n.Link))
	ballast, err := os.Create(n.Dir + "/ipam/ballast")
	no(t, err)
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	ballast.Close()
	c := call{"ADD", second.ID, second.Path(), "eth0", "", conf}
	for range 2 {
		stdout, err := c.run(n)
		refused(t, stdout, err, 11, "no space left", "free some")
		if after := fmt.Sprint(reservations(t, n), state(t, n.Link)); after != before {
			t.Errorf("before %s\nafter  %s", before, after)
		}
	}
	no(t, n.Del(l, first))
	empty(t, n, first, second)

	no(t, os.Remove(n.Dir+"/ipam/ballast"))
	add(t, n, l, first)
	remount := func(flags uintptr) { no(t, unix.Mount("", n.Dir+"/ipam", "", flags|unix.MS_REMOUNT, "size=64k")) }
	remount(unix.MS_RDONLY)
	stdout, err := c.run(n)
	refused(t, stdout, err, 11, "read-only", "make the filesystem writable")
	c.command = "DEL" // of a pod that has nothing
	if stdout, err := c.run(n); err != nil {
		t.Errorf("%v, %s", err, stdout)
	}
	if err := n.Del(l, first); err == nil || !strings.Contains(err.Error(), "read-only") {
		t.Errorf("DEL: %v", err)
	}
	remount(0)
	no(t, n.Del(l, first))
	empty(t, n, first, second)
}
