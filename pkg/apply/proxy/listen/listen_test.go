package listen

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func v2(command, family byte, body ...byte) string {
	b := append([]byte(v2Start), 0x20|command, family)
	return string(append(binary.BigEndian.AppendUint16(b, uint16(len(body))), body...))
}

var v4 = []byte{192, 0, 2, 1, 10, 0, 0, 1, 0x30, 0x39, 0, 80}

func TestReadProxy(t *testing.T) {
	v6 := append(append(netip.MustParseAddr("2001:db8::7").AsSlice(), netip.MustParseAddr("fd00::1").AsSlice()...), 0x30, 0x39, 0, 80)
	for _, c := range []struct{ in, from, rest string }{
		{"PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\nGET /", "192.0.2.1:12345", "GET /"},
		{"PROXY TCP6 2001:db8::7 fd00::1 12345 80\r\n", "[2001:db8::7]:12345", ""},
		{"PROXY UNKNOWN\r\nGET", "", "GET"},
		{"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", "", ""},
		{v2(1, 0x11, v4...) + "GET /", "192.0.2.1:12345", "GET /"},
		{v2(1, 0x11, append(v4, 0x04, 0, 1, 0)...) + "x", "192.0.2.1:12345", "x"},
		{v2(1, 0x21, v6...), "[2001:db8::7]:12345", ""},
		{v2(0, 0) + "GET", "", "GET"},
		{v2(1, 0), "", ""},
		{v2(1, 0x11, append(v4, make([]byte, 1000)...)...) + "z", "192.0.2.1:12345", "z"},
	} {
		for name, r := range map[string]io.Reader{"at once": strings.NewReader(c.in), "byte by byte": iotest.OneByteReader(strings.NewReader(c.in))} {
			from, rest, err := readProxy(r)
			more, _ := io.ReadAll(r)
			want, _ := netip.ParseAddrPort(c.from)
			if err != nil || from != want || string(rest)+string(more) != c.rest {
				t.Errorf("%q %s: %v %q %v", c.in, name, from, string(rest)+string(more), err)
			}
		}
	}
	for _, bad := range []string{
		"", "P", "GET / HTTP/1.1\r\n", "PROXY", "PROXY TCP4 192.0.2.1\r\n", "PROXY TCP4 ::1 ::1 1 2\r\n",
		"PROXY TCP4 192.0.2.1 10.0.0.1 x 80\r\n", "PROXY TCP4 192.0.2.1 10.0.0.1 70000 80\r\n",
		"PROXY " + strings.Repeat("x", 300), "PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n",
		v2(2, 0x11, v4...), v2(1, 0x11, 1, 2), v2Start + "\x11\x11\x00\x00", v2(1, 0x11, make([]byte, 5000)...), v2(1, 0x11, v4...)[:20],
	} {
		if from, _, err := readProxy(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: accepted as %v", bad, from)
		}
	}
}

func FuzzReadProxy(f *testing.F) {
	f.Add([]byte("PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\n"))
	f.Add([]byte(v2(1, 0x11, v4...)))
	f.Fuzz(func(t *testing.T, in []byte) {
		from, rest, err := readProxy(bytes.NewReader(in))
		if err == nil && len(rest) > len(in) || err != nil && from.IsValid() {
			t.Errorf("%q: %v %q %v", in, from, rest, err)
		}
	})
}

func listenOn(t *testing.T, cfg Config) *Listener {
	t.Helper()
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l, err := New(inner, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

func dial(t *testing.T, l *Listener) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestProxyHeaderCountsOnlyFromTrustedPeers(t *testing.T) {
	const header = "PROXY TCP4 192.0.2.1 10.0.0.1 12345 80\r\nhello"
	for _, c := range []struct{ trusted, from, read string }{
		{"127.0.0.0/8", "192.0.2.1", "hello"},
		{"10.0.0.0/8", "127.0.0.1", header},
	} {
		l := listenOn(t, Config{Max: 10, ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix(c.trusted)}, HeaderTime: time.Second})
		client := dial(t, l)
		client.Write([]byte(header))
		client.(*net.TCPConn).CloseWrite()
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		from, _, _ := net.SplitHostPort(server.RemoteAddr().String())
		read, err := io.ReadAll(server)
		if from != c.from || string(read) != c.read || err != nil {
			t.Errorf("trusting %s: %s %q %v", c.trusted, from, read, err)
		}
		server.Close()
	}
	if _, err := New(nil, Config{ProxyProtocol: true}); err == nil {
		t.Error("trusts everybody")
	}
}

func TestSilentPeerOfTheProxyProtocol(t *testing.T) {
	l := listenOn(t, Config{Max: 10, ProxyProtocol: true, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, HeaderTime: 50 * time.Millisecond})
	dial(t, l)
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	if _, err := server.Read(make([]byte, 1)); err == nil {
		t.Error("read without a header")
	}
}

func TestLimit(t *testing.T) {
	opened := make(chan int, 10)
	l := listenOn(t, Config{Max: 1, Opened: func(d int) { opened <- d }})
	dial(t, l)
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	over := dial(t, l)
	accepted := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		accepted <- c
	}()
	over.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := over.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection over the limit: %v", err)
	}
	first.Close()
	first.Close()
	if l.Open() != 0 {
		t.Errorf("%d open", l.Open())
	}
	dial(t, l)
	(<-accepted).Close()
	if a, b, c := <-opened, <-opened, <-opened; a != 1 || b != 0 || c != -1 {
		t.Errorf("told %d %d %d", a, b, c)
	}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func TestStalledPeerFreesTheWriter(t *testing.T) {
	l := listenOn(t, Config{Max: 1, Stall: 100 * time.Millisecond})
	dial(t, l) // and never reads
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	done := make(chan error)
	go func() {
		for {
			if _, err := server.Write(make([]byte, 1<<20)); err != nil {
				done <- err
				return
			}
		}
	}()
	select {
	case err := <-done:
		if !isTimeout(err) {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still writing")
	}
}
