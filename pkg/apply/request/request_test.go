package request

import (
	"bytes"
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

// A name server that knows a name has answered, one that does not has said so, and
// one that is silent has not.
func TestName(t *testing.T) {
	c, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := c.ReadFrom(b)
			if err != nil {
				return
			}
			if a := reply(b[:n]); a != nil {
				_, _ = c.WriteTo(a, from)
			}
		}
	}()
	r := facts.Request{To: netip.MustParseAddrPort(c.LocalAddr().String()), Proto: service.UDP}
	for name, want := range map[string]facts.Outcome{"known.test.": {Answered: true}, "absent.test.": {Refused: true}, "silence.test.": {}} {
		r.Name, r.Port = name, free(t)
		if o := Make(t.Context(), r); o.Answered != want.Answered || o.Refused != want.Refused || o.Unsent {
			t.Errorf("%s: %+v", name, o)
		}
	}
}

// reply is a name server's: RFC 1035, by hand.
func reply(question []byte) []byte {
	const header = 12
	end := header + bytes.IndexByte(question[header:], 0) + 5
	a := append([]byte{question[0], question[1], 0x85, 0x80, 0, 1, 0, 0, 0, 0, 0, 0}, question[header:end]...)
	switch {
	case bytes.Contains(question, []byte("known")):
		a[7] = 1
		return append(a, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 1)
	case bytes.Contains(question, []byte("absent")):
		a[3] |= 3
		return a
	}
	return nil
}
