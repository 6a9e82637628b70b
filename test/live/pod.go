package live

import (
	"net"
	"net/netip"
	"path/filepath"
	"testing"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/thread"
)

// Pod is the network namespace of the pod on a node that has an address.
func Pod(t testing.TB, c *cluster.Cluster, node string, addr netip.Addr) load.Place {
	t.Helper()
	return load.In(Namespace(t, c, node, addr))
}

// Namespace is its file.
func Namespace(t testing.TB, c *cluster.Cluster, node string, addr netip.Addr) string {
	t.Helper()
	dir, err := c.Path(node, "/run/netns/*")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if has(file, addr) {
			return file
		}
	}
	t.Fatalf("none of %d network namespaces on %s has the address %s", len(files), node, addr)
	return ""
}

// has reports whether an address is in a namespace, which may go meanwhile.
func has(file string, addr netip.Addr) (found bool) {
	_ = thread.In(file, func() error {
		addrs, err := net.InterfaceAddrs()
		for _, a := range addrs {
			if p, err := netip.ParsePrefix(a.String()); err == nil && p.Addr() == addr {
				found = true
			}
		}
		return err
	})
	return found
}
