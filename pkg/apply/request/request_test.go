package request

import (
	"crypto/sha256"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

// A request is answered with what the server says, and comes from its port;
// one to a port where nobody listens is refused.
func TestMake(t *testing.T) {
	ports := make(chan string, 2)
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ports <- r.RemoteAddr[strings.LastIndexByte(r.RemoteAddr, ':')+1:]
		w.WriteHeader(http.StatusTeapot)
	})
	secure := httptest.NewTLSServer(handler)
	defer secure.Close()
	at := netip.MustParseAddrPort(secure.Listener.Addr().String())
	r := facts.Request{To: at, Proto: service.TCP, Port: free(t), URL: "https://shop.example.com/cart"}
	o := Make(t.Context(), r)
	sum := sha256.Sum256(secure.Certificate().Raw)
	if !o.Answered || o.Status != http.StatusTeapot || o.Certificate != hex.EncodeToString(sum[:]) || o.Error != "" {
		t.Errorf("asked over TLS: %+v", o)
	}
	if got := <-ports; netip.MustParseAddrPort("127.0.0.1:"+got).Port() != r.Port {
		t.Errorf("it came from port %s, want %d", got, r.Port)
	}
	for _, proto := range []service.Protocol{service.TCP, service.UDP} {
		o := Make(t.Context(), facts.Request{To: netip.AddrPortFrom(at.Addr(), free(t)), Proto: proto, Port: free(t)})
		if o.Answered || !o.Refused || o.Unsent || o.Error == "" {
			t.Errorf("%s where nobody listens: %+v", proto, o)
		}
	}
	if o := Make(t.Context(), facts.Request{To: at, Proto: service.SCTP}); !o.Unsent {
		t.Errorf("SCTP: %+v", o)
	}
}

// free is a port that nobody has.
func free(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}
