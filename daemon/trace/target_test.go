package trace

import (
	"fmt"
	"testing"

	"poplin.dev/poplin/pkg/cluster/object"
)

func TestParse(t *testing.T) {
	from := &object.Pod{}
	from.Namespace = "green"
	for text, want := range map[string]string{
		"web":                                " blue/web: tcp",
		"web:80":                             " blue/web:80 tcp",
		"pod/web":                            "pod blue/web: tcp",
		"svc/red/web:http":                   "service red/web:http tcp",
		"red/web:53/udp":                     " red/web:53 udp",
		"node/n1":                            "node blue/n1: tcp",
		"10.0.0.1:80":                        "10.0.0.1 80 tcp",
		"[fd00::1]:80/sctp":                  "fd00::1 80 sctp",
		"fd00::1":                            "fd00::1  tcp",
		"http://web.red.svc.cluster.local/x": "service red/web:80 tcp",
		"https://web.red.svc":                "service red/web:443 tcp",
		"http://web:8080/":                   "service green/web:8080 tcp",
		"http://10.0.0.1/":                   "10.0.0.1 80 tcp",
		"https://shop.example.com/cart":      "https://shop.example.com/cart",
		"http://shop.svc.example.com/":       "http://shop.svc.example.com/",
	} {
		n, err := parse(text, "blue")
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		n.inside(from)
		got := fmt.Sprintf("%s %s/%s:%s %s", n.kind, n.namespace, n.name, n.port, n.proto)
		if n.addr.IsValid() {
			got = fmt.Sprintf("%s %s %s", n.addr, n.port, n.proto)
		}
		if n.url != nil {
			got = n.url.String()
		}
		if got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
	for _, text := range []string{"", "a/b/c", "pod/", "ftp://x/", "http:///x", "node/a/b"} {
		if _, err := parse(text, "blue"); err == nil {
			t.Errorf("%q is no end of a way", text)
		}
	}
}
