package ingress

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

var record = proxy.Record{
	Start: time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC), Duration: 1234 * time.Microsecond, Client: netip.MustParseAddr("192.0.2.7"),
	Method: "GET", Host: "a.com", URI: "/x?\"y\"\n", Proto: "HTTP/1.1", TLS: true, Status: 200, BytesIn: 3, BytesOut: 12,
	Ingress: cluster.ObjectName{Namespace: "blue", Name: "web"}, Backend: web.BackendID{Service: cluster.ObjectName{Namespace: "blue", Name: "shop"}, Port: "80"},
	Endpoint: "10.244.0.1:8080", Attempts: 1, ID: "abc", UserAgent: "evil\x00\xff\\é", Referer: "",
}

func line(t *testing.T, format string, r proxy.Record) string {
	t.Helper()
	var out bytes.Buffer
	l, err := newAccessLog(format, &out)
	if err != nil {
		t.Fatal(err)
	}
	l.write(&r)
	l.flush()
	return out.String()
}

func TestAccessLog(t *testing.T) {
	got := line(t, `$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent $request_time $proxy_upstream_name $upstream_addr $scheme`, record)
	want := `192.0.2.7 - - [01/Jun/2026:12:00:00 +0000] "GET /x?\"y\"\u000a HTTP/1.1" 200 12 0.001 blue/shop:80 10.244.0.1:8080 https` + "\n"
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	var j map[string]any
	text := line(t, "json", record)
	if err := json.Unmarshal([]byte(text), &j); err != nil || strings.Count(text, "\n") != 1 {
		t.Fatalf("%v in %s", err, text)
	}
	if j["request_uri"] != record.URI || j["status"] != 200.0 || j["ingress_name"] != "web" || j["http_user_agent"] != "evil\x00\u00ff\\é" {
		t.Errorf("%v", j)
	}
	quiet := record
	quiet.Quiet = true
	if line(t, "json", quiet) != "" || line(t, "off", record) != "" {
		t.Error("a line that nobody asked for")
	}
	if _, err := newAccessLog("$remote_addr $cookie_x", nil); err == nil || !strings.Contains(err.Error(), `"$cookie_x"`) {
		t.Errorf("%v", err)
	}
}

// TestVariablesAreDocumented holds docs/ingress.md to the code.
func TestVariablesAreDocumented(t *testing.T) {
	b, err := os.ReadFile("../../docs/ingress.md")
	if err != nil {
		t.Fatal(err)
	}
	_, part, _ := strings.Cut(string(b), "- `-access-log` is")
	part, _, _ = strings.Cut(part, "\n- ")
	var listed []string
	for _, m := range regexp.MustCompile(`\$([a-z0-9_]+)`).FindAllStringSubmatch(part, -1) {
		listed = append(listed, m[1])
	}
	var known []string
	for name := range fields {
		known = append(known, name)
	}
	slices.Sort(listed)
	slices.Sort(known)
	if !slices.Equal(listed, known) {
		t.Errorf("documented %v\nknown %v", listed, known)
	}
}

func BenchmarkAccessLogJSON(b *testing.B) {
	l, _ := newAccessLog("json", discard{})
	for b.Loop() {
		l.write(&record)
	}
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }
