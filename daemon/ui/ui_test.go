package ui

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// objects are what somebody may list, by path.
var objects = map[string]string{
	"/api/v1/nodes":                        `{"items":[{"metadata":{"name":"n1"},"status":{"conditions":[{"type":"Ready","status":"True"}]}}]}`,
	"/api/v1/pods":                         `{"items":[{"metadata":{"namespace":"blue","name":"web"},"spec":{"nodeName":"n1"},"status":{"phase":"Running","podIPs":[{"ip":"10.244.1.7"}]}}]}`,
	"/api/v1/services":                     `{"items":[{"metadata":{"namespace":"blue","name":"web"},"spec":{"type":"ClusterIP","ports":[{"port":80}]}}]}`,
	"/apis/networking.k8s.io/v1/ingresses": `{"items":[{"metadata":{"namespace":"blue","name":"shop"},"spec":{"tls":[{"hosts":["x"],"secretName":"the-secret"}]}}]}`,
}

// server is an API server that lists these, and keeps what it is asked.
func server(t *testing.T, may map[string]string) (kubeconfig string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var list []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		list = append(list, r.Method+" "+r.URL.Path)
		mu.Unlock()
		o, found := may[r.URL.Path]
		w.Header().Set("Content-Type", "application/json")
		if !found {
			w.WriteHeader(http.StatusForbidden)
			o = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure","reason":"Forbidden","code":403,"message":"you may not"}`
		}
		_, _ = io.WriteString(w, o)
	}))
	t.Cleanup(s.Close)
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {token: x}}]\nclusters: [{name: x, cluster: {server: %q}}]\n", s.URL)
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return kubeconfig, func() []string { mu.Lock(); defer mu.Unlock(); return append([]string{}, list...) }
}

// The page shows what its reader may read, and names the rest. It asks for no
// Secret, shows no name of one, and changes nothing.
func TestWhatMayNotBeReadIsNamed(t *testing.T) {
	kubeconfig, asked := server(t, objects)
	r, err := newReader(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.policies.Run(ctx) }()
	g, err := r.graph(ctx)
	stop()
	<-ended
	if err != nil || len(g.Nodes) != 1 || len(g.Pods) != 1 || len(g.Services) != 1 || len(g.Ingresses) != 1 {
		t.Fatalf("%v %+v", err, g)
	}
	missing := strings.Join(g.Missing, "\n")
	for _, want := range []string{"EndpointSlices: ", "NodeNetworks: ", "policies: "} {
		if !strings.Contains(missing, want) {
			t.Errorf("no %q in %s", want, missing)
		}
	}
	if len(g.Missing) != 3 {
		t.Errorf("missing: %s", missing)
	}
	for _, request := range asked() {
		if strings.Contains(request, "secrets") || !strings.HasPrefix(request, "GET ") {
			t.Errorf("asked for %s", request)
		}
	}
	if text, err := json.Marshal(g); err != nil || strings.Contains(string(text), "the-secret") {
		t.Errorf("%v %s", err, text)
	}
}

// Without the nodes there is no picture, and an error says why.
func TestWithoutNodes(t *testing.T) {
	kubeconfig, _ := server(t, map[string]string{"/api/v1/pods": objects["/api/v1/pods"]})
	r, err := newReader(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.graph(t.Context()); err == nil || !strings.Contains(err.Error(), "/api/v1/nodes") || !strings.Contains(err.Error(), "you may not") {
		t.Error(err)
	}
}

// What cannot be is said before anything is served.
func TestRunRefuses(t *testing.T) {
	for _, row := range []struct {
		conf Config
		want string
	}{
		{Config{Address: "0.0.0.0"}, "write 127.0.0.1 or ::1"},
		{Config{Address: "127.0.0.1", Kubeconfig: "/nowhere/kubeconfig"}, "/nowhere/kubeconfig"},
	} {
		row.conf.Say = func(url string) { t.Errorf("it is at %s", url) }
		if err := Run(t.Context(), row.conf); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%v, want %q", err, row.want)
		}
	}
}
