package ui

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/trace/way"
	"poplin.dev/poplin/pkg/ui/graph"
)

// source counts what is asked of the cluster.
type source struct {
	graphs, traces int
	asked          string
	err            error
}

func (s *source) Graph(context.Context) (graph.Graph, error) {
	s.graphs++
	return graph.Graph{Nodes: []graph.Node{{Thing: graph.Thing{ID: "node/n1", Name: "n1"}}}}, s.err
}

func (s *source) Trace(_ context.Context, from, to string, family int) (way.Report, error) {
	s.traces++
	s.asked = fmt.Sprintf("%s > %s, %d", from, to, family)
	return way.Report{Status: way.Broken, Hops: []way.Hop{{Hop: way.Overlay, Node: "n1", Status: way.Broken}}}, s.err
}

func (s *source) source() Source { return Source{Graph: s.Graph, Trace: s.Trace} }

const key = "the key"

// ask asks a handler; host and key may be anything.
func ask(h http.Handler, method, host, key, target string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://x"+target, nil)
	r.Host = host
	if key != "" {
		r.Header.Set("Authorization", "Bearer "+key)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func TestWhoIsAnswered(t *testing.T) {
	const local = "127.0.0.1:8001"
	for _, row := range []struct {
		method, host, key, target string
		want                      int
	}{
		{"GET", local, "", "/", 200},
		{"GET", local, "", "/page.js", 200},
		{"HEAD", "localhost", "", "/", 200},
		{"GET", "[::1]:8001", key, "/api/graph", 200},
		{"GET", "LOCALHOST:9000", key, "/api/graph", 200}, // through a tunnel
		{"GET", local, key, "/api/trace?to=service/web", 200},
		{"GET", local, key, "/nothing", 404},
		// Another's name that leads here.
		{"GET", "evil.example.com", key, "/", 421},
		{"GET", "evil.example.com:8001", key, "/api/graph", 421},
		{"GET", "127.0.0.1.example.com", key, "/api/graph", 421},
		{"GET", "192.0.2.1:8001", key, "/api/graph", 421},
		{"GET", "", key, "/api/graph", 421},
		// Without the key, or with another.
		{"GET", local, "", "/api/graph", 401},
		{"GET", local, "the ke", "/api/graph", 401},
		{"GET", local, "the key ", "/api/trace?to=x", 401},
		{"GET", local, "", "/api/graph?key=the+key", 401},
		// What would change something.
		{"POST", local, key, "/api/trace?to=x", 405},
		{"PUT", local, key, "/", 405},
		{"DELETE", local, key, "/api/graph", 405},
		// What cannot be asked.
		{"GET", local, key, "/api/trace", 400},
		{"GET", local, key, "/api/trace?to=x&family=5", 400},
	} {
		s := &source{}
		w := ask(Handler(s.source(), key), row.method, row.host, row.key, row.target)
		if w.Code != row.want {
			t.Errorf("%s %s at %q with key %q: %d %s, want %d", row.method, row.target, row.host, row.key, w.Code, w.Body, row.want)
		}
		if asked := s.graphs+s.traces > 0; asked != (row.want == 200 && strings.HasPrefix(row.target, "/api/")) {
			t.Errorf("%s %s at %q: %+v", row.method, row.target, row.host, s)
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "default-src 'self';") || w.Code == 200 && w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %v", row.target, w.Header())
		}
	}
}

func TestTrace(t *testing.T) {
	s := &source{}
	h := Handler(s.source(), key)
	w := ask(h, "GET", "localhost", key, "/api/trace?from=+pod/client&to=service%2Fweb:80&family=6")
	var got graph.Traced
	if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || got.Status != way.Broken || len(got.Hops) != 1 || got.Hops[0].At != "node/n1" {
		t.Errorf("%v %s", err, w.Body)
	}
	if s.asked != "pod/client > service/web:80, 6" {
		t.Error(s.asked)
	}
	s.err = errors.New("there is no pod default/client")
	if w := ask(h, "GET", "localhost", key, "/api/trace?to=x"); w.Code != 502 || !strings.Contains(w.Body.String(), `{"error":"there is no pod default/client"}`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// However often somebody asks, the API server is asked seldom; what went wrong
// is not kept.
func TestTheClusterIsAskedSeldom(t *testing.T) {
	s := &source{err: errors.New("no")}
	h := Handler(s.source(), key)
	if w := ask(h, "GET", "localhost", key, "/api/graph"); w.Code != 502 {
		t.Errorf("%d", w.Code)
	}
	s.err = nil
	for range 20 {
		if w := ask(h, "GET", "localhost", key, "/api/graph"); w.Code != 200 || !strings.Contains(w.Body.String(), `"node/n1"`) {
			t.Errorf("%d %s", w.Code, w.Body)
		}
	}
	if s.graphs != 2 {
		t.Errorf("the cluster was asked %d times", s.graphs)
	}
}

func TestListenRefuses(t *testing.T) {
	for _, row := range []struct {
		address string
		port    int
		want    string
	}{
		{"0.0.0.0", 0, "write 127.0.0.1 or ::1"}, {"::", 0, "write 127.0.0.1 or ::1"}, {"192.0.2.1", 0, "-address"}, {"localhost", 0, "-address"}, {"", 0, "-address"},
		{"127.0.0.1", 65536, "-port 65536"}, {"127.0.0.1", -1, "-port -1"},
	} {
		if l, err := Listen(row.address, row.port); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %d: %v %v", row.address, row.port, l, err)
		}
	}
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var port int
	if _, err := fmt.Sscanf(l.Addr().String(), "127.0.0.1:%d", &port); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen("127.0.0.1", port); err == nil || !strings.Contains(err.Error(), "-port 0 takes a free one") {
		t.Errorf("%v", err)
	}
}

// The page is there under the address that is said, with the key, until it is
// told to end; also with a connection that stays open.
func TestServe(t *testing.T) {
	l, err := Listen("127.0.0.1", 0)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	said, ended := make(chan string, 1), make(chan error, 1)
	go func() { ended <- Serve(ctx, l, (&source{}).source(), func(url string) { said <- url }) }()
	base, key, ok := strings.Cut(<-said, "/#key=")
	if !ok || len(key) < 26 {
		t.Fatalf("%s %s", base, key)
	}
	r, err := http.NewRequest(http.MethodGet, base+"/api/graph", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+key)
	answer, err := http.DefaultClient.Do(r)
	if err != nil || answer.StatusCode != 200 {
		t.Fatal(answer, err)
	}
	stop()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("it does not end")
	}
	_ = answer.Body.Close()
}
