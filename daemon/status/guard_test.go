package status

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	made "poplin.dev/poplin/test/certificate"
)

// access knows the tokens "reader" and "other"; to "broken" it has no answer.
type access struct{}

func (access) MayGet(_ context.Context, token, path string) (string, bool, error) {
	switch token {
	case "reader", "other":
		return token, token == "reader" && path == "/metrics", nil
	case "broken":
		return "", false, errors.New("the API server is away")
	}
	return "", false, nil
}

// ask returns 0 and the error where there is no answer.
func ask(config *tls.Config, address, authorization string) (int, string) {
	client := http.Client{Transport: &http.Transport{TLSClientConfig: config}}
	defer client.CloseIdleConnections()
	request, _ := http.NewRequest(http.MethodGet, "https://"+address+"/metrics", nil)
	if authorization != "" {
		request.Header.Set("Authorization", authorization)
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, err.Error()
	}
	defer response.Body.Close()
	b, _ := io.ReadAll(response.Body)
	return response.StatusCode, string(b)
}

func TestMetricsAreGuarded(t *testing.T) {
	var deps Deps
	start(t, func(d *Deps) { d.Access, d.Node = access{}, "worker-1"; deps = *d })
	anyone := &tls.Config{InsecureSkipVerify: true}
	until(t, "metrics are served", func() bool { code, _ := ask(anyone, deps.Metrics, ""); return code != 0 })
	for _, tt := range []struct {
		authorization string
		want          int
		body          string
	}{
		{"Bearer reader", 200, "poplin_peers 2"},
		{"bearer reader", 200, "poplin_peers 2"},
		{"", 401, "token"},
		{"Bearer", 401, "token"},
		{"Basic reader", 401, "token"},
		{"Bearer nobody", 401, "token"},
		{"Bearer other", 403, "other may not get /metrics"},
		{"Bearer broken", 503, "API server"},
	} {
		if code, body := ask(anyone, deps.Metrics, tt.authorization); code != tt.want || !strings.Contains(body, tt.body) {
			t.Errorf("%q: %d %s, want %d %s", tt.authorization, code, body, tt.want, tt.body)
		}
	}
	if code, body := get(deps.Metrics, "/metrics"); code == 200 || strings.Contains(body, "poplin_peers") {
		t.Errorf("without TLS: %d %s", code, body)
	}
	// Health stays as it is: the kubelet shows no token.
	if code, _ := get(deps.Health, "/healthz"); code != 200 {
		t.Errorf("health: %d", code)
	}
}

// A given certificate is served, and a new one soon after it is there.
func TestGivenCertificate(t *testing.T) {
	dir := t.TempDir()
	c := &certificate{node: "worker-1", certFile: filepath.Join(dir, "tls.crt"), keyFile: filepath.Join(dir, "tls.key")}
	if _, err := c.get(nil); err == nil {
		t.Error("a certificate from nowhere")
	}
	give := func() string {
		t.Helper()
		given, err := made.New("worker-1")
		if err := errors.Join(err, os.WriteFile(c.certFile, given.PEM, 0o600), os.WriteFile(c.keyFile, given.Key, 0o600)); err != nil {
			t.Fatal(err)
		}
		return string(given.Leaf.Raw)
	}
	serves := func(want string) {
		t.Helper()
		pair, err := c.get(nil)
		if err != nil || string(pair.Certificate[0]) != want {
			t.Errorf("another certificate is served, %v", err)
		}
	}
	first := give()
	serves(first)
	second := give()
	serves(first)
	c.due = time.Time{}
	serves(second)
	if err := os.WriteFile(c.keyFile, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c.due = time.Time{}
	serves(second) // half of a new one is no reason to serve none
}
