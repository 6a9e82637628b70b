package fault

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/nftables"

	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/soak"
)

// TestCNIChurn makes and removes a pod through libcni, over and over, and
// wants nothing left: no link, route, neighbour, address or file.
func TestCNIChurn(t *testing.T) {
	need.Root(t)
	need.Link(t, "veth")
	count := soak.Times(500)
	bin := t.TempDir()
	if err := cni.Build(bin, "cmd/poplin"); err != nil {
		t.Fatal(err)
	}
	n, err := cni.NewNode(t.TempDir(), bin)
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	list, err := cni.List(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"host-local","dataDir":%q,`+
		`"ranges":[[{"subnet":"10.244.1.0/27"}],[{"subnet":"fd00:10:244:1::/64"}]]}}`, n.Dir+"/ipam"))
	if err != nil {
		t.Fatal(err)
	}
	// More pods than the range has addresses, so that each is given again.
	for i := range count {
		p, err := cni.NewPod(fmt.Sprintf("churn-%d", i))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := n.Add(list, p); err != nil {
			t.Fatalf("pod %d: %v", i, err)
		}
		if i == count/2 {
			// What is counted below is there during the run.
			if got := leftovers(t, n); len(got) < 2 {
				t.Fatalf("with a pod there is only %v", got)
			}
		}
		// Every third sandbox is gone before its DEL, as after a crash.
		if i%3 == 0 {
			p.Close()
		}
		if err := n.Del(list, p); err != nil {
			t.Fatalf("pod %d: %v", i, err)
		}
		if i%3 != 0 {
			p.Close()
		}
	}
	if got := leftovers(t, n); len(got) > 0 {
		t.Errorf("after %d pods there is left: %v", count, got)
	}
}

func leftovers(t *testing.T, n *cni.Node) (found []string) {
	t.Helper()
	links, err := n.Link.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links[1:] { // the first is the loopback device
		found = append(found, "link "+l.Attrs().Name)
	}
	neighs, err := n.Link.NeighList(0, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range neighs {
		if e.LinkIndex != 1 {
			found = append(found, "neighbour "+e.IP.String())
		}
	}
	routes, err := n.Link.RouteList(nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		if r.LinkIndex != 1 {
			found = append(found, "route "+r.String())
		}
	}
	for _, pattern := range []string{"/ipam/pods/*", "/cache/results/*"} {
		files, err := filepath.Glob(n.Dir + pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range files {
			if name := filepath.Base(f); name != "lock" && !strings.HasPrefix(name, "last_reserved_ip.") {
				found = append(found, "file "+name)
			}
		}
	}
	ports, err := filepath.Glob(n.Dir + "/state/hostports/*.json")
	ok(t, err)
	for _, f := range ports {
		found = append(found, "host port "+filepath.Base(f))
	}
	ok(t, n.Do(func() {
		var tables []*nftables.Table
		var conn *nftables.Conn
		if conn, err = nftables.New(); err == nil {
			tables, err = conn.ListTables()
		}
		for _, table := range tables {
			found = append(found, "nftables table "+table.Name)
		}
	}))
	ok(t, err)
	return found
}
