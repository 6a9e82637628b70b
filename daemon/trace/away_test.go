package trace

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/facts"
)

// TestSilentAPIServer: an API server that takes connections and does not answer
// is away soon, where the node can be asked for what it knows.
func TestSilentAPIServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"a","contexts":[{"name":"a","context":{"cluster":"a"}}],"clusters":[{"name":"a","cluster":{"server":"http://%s"}}]}`, l.Addr())
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	node := cluster.Node{Name: "n1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	local := func(q facts.Question) facts.Node {
		return facts.Node{Version: facts.Version, Name: "n1", Cluster: &facts.Cluster{
			Since: time.Now().Add(-time.Minute), Self: cluster.Self{Name: "n1", PodCIDRs: node.PodCIDRs}, Nodes: []cluster.Node{node},
		}}
	}
	start := time.Now()
	r, err := Run(t.Context(), Config{Kubeconfig: kubeconfig, Namespace: "default", From: "node/n1", To: "10.244.1.7:80", Local: local, LocalName: "n1"})
	if err != nil || r.Memory == nil {
		t.Fatalf("%+v, %v", r, err)
	}
	if took := time.Since(start); took > 1500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
}
