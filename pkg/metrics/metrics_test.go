package metrics

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestExport(t *testing.T) {
	m := New()
	m.Pass("overlay", 3*time.Millisecond, nil)
	m.Pass("overlay", time.Second, errors.New("x"))
	m.Operations(3, 2, 1, 0)
	m.Dialed("172.30.0.11:6443", errors.New("refused"))
	m.Requested("nodes", nil)
	m.Heard("nodenetworks")
	m.Peers.Set(2)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`poplin_build_info{commit="unknown",version="dev"} 1`,
		`poplin_passes_total{result="ok",task="overlay"} 1`,
		`poplin_passes_total{result="failed",task="overlay"} 1`,
		`poplin_pass_duration_seconds_bucket{task="overlay",le="0.004"} 1`,
		`poplin_operations_total{result="added"} 3`,
		`poplin_operations_total{result="failed"} 0`,
		`poplin_api_connections_total{result="failed"} 1`,
		`poplin_api_requests_total{resource="nodes",result="ok"} 1`,
		`poplin_api_events_total{resource="nodenetworks"} 1`,
		"poplin_peers 2",
		"process_resident_memory_bytes", "go_goroutines",
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s in\n%s", want, w.Body.String())
		}
	}
	// No label grows with the cluster.
	if strings.Contains(w.Body.String(), "172.30") {
		t.Error("an address is a label")
	}
	New() // a second registry is no conflict
}
