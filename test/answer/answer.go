// Package answer is a daemon that says one thing to whoever asks. Inputs are the
// path of a socket and a text; output is that socket, for as long as a test
// lasts. It refuses to understand what it is asked.
package answer

import (
	"io"
	"net"
	"testing"
)

// With answers each connection to the socket with a text; never, if it is empty.
func With(t testing.TB, socket, text string) {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if text == "" {
				t.Cleanup(func() { c.Close() })
				continue
			}
			_, _ = c.Read(make([]byte, 4096))
			_, _ = io.WriteString(c, text)
			c.Close()
		}
	}()
}
