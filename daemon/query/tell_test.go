package query

import (
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/facts"
)

// TestHangingDaemonIsAwaitedOnce: a daemon that is stopped takes connections and
// does not answer. One command asks this node several times.
func TestHangingDaemonIsAwaitedOnce(t *testing.T) {
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, "sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := Places{Config: filepath.Join(dir, "none"), Socket: l.Addr().String(), StateDir: dir, CNICache: dir, Silent: &atomic.Bool{}}
	start := time.Now()
	for range 3 {
		n := Run(t.Context(), p, "n1", facts.Question{Kinds: []facts.Kind{facts.OfDaemon, facts.OfCluster}})
		if n.Daemon == nil || n.Daemon.Running || n.Daemon.Problem == "" || n.Cluster == nil || n.Cluster.Problem == "" {
			t.Errorf("a daemon that does not answer runs: %+v", n)
		}
	}
	if took := time.Since(start); took < patience || took > 2*patience {
		t.Errorf("three questions took %v, and the daemon has %v to answer", took, patience)
	}
}
