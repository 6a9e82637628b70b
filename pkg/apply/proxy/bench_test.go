package proxy

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/program/web"
)

// BenchmarkKeepAlive is one connection's requests, one after the other. The
// back end answers without looking, so that what is counted is the proxy's.
func BenchmarkKeepAlive(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				buf := make([]byte, 4096)
				for {
					if n, err := c.Read(buf); err != nil || n == 0 {
						return
					}
					io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello")
				}
			}()
		}
	}()
	p := New(Config{})
	id := web.BackendID{Port: "80"}
	p.Set(&web.Program{
		Hosts: map[string]*web.Host{"example.com": {Prefix: map[string]*web.Route{"": {Backend: id, Options: &web.Options{}}}}},
		Backends: map[web.BackendID]*web.Backend{id: {
			ID: id, Protocol: web.HTTP, Ready: []netip.AddrPort{netip.MustParseAddrPort(l.Addr().String())},
		}},
	})
	front, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go p.Serve(b.Context(), front, nil)
	c, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	br := bufio.NewReader(c)
	b.ReportAllocs()
	for b.Loop() {
		io.WriteString(c, "GET /x HTTP/1.1\r\nHost: example.com\r\nUser-Agent: bench\r\nAccept: */*\r\n\r\n")
		length := 0
		for {
			line, err := br.ReadSlice('\n')
			if err != nil {
				b.Fatal(err)
			}
			if len(line) == 2 {
				break
			}
			if strings.HasPrefix(string(line[:min(len(line), 15)]), "Content-Length:") {
				length = 5
			}
		}
		if n, err := br.Discard(length); err != nil || n != 5 {
			b.Fatal(n, err)
		}
	}
}
