// Package hostile sends a proxy what servers in a row have been known to read
// in different ways. Inputs are ways to connect to a proxy and the back end
// behind it, a Spy; output is what went wrong. It trusts nothing but bytes: it
// writes requests by hand, and what the back end saw is compared with what a
// narrow reader of the same bytes would see.
package hostile

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Hosts that the proxy must route to the Spy: all paths of the first, and of
// the second those below /public.
const (
	Host    = "example.com"
	Guarded = "guarded.example.com"
)

// Spy is a back end that keeps the requests it was sent, as it read them.
type Spy struct {
	mu   sync.Mutex
	seen []string
}

// ServeHTTP answers everything with 200 and an empty body.
func (s *Spy) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // cut off, and known to be
	}
	line := fmt.Sprintf("%s %s [%s]", r.Method, r.RequestURI, body)
	for _, name := range []string{"X-Forwarded-For", "X-Real-Ip", "X-Forwarded-Proto", "X-Forwarded-Host"} {
		if v := r.Header[name]; len(v) != 1 || strings.Contains(v[0], Forged) {
			line += fmt.Sprintf(" with %s %q", name, v)
		}
	}
	for name, values := range r.Header {
		if strings.Contains(name, "_") || strings.Contains(strings.Join(values, ""), Forged) || name == "Upgrade" || name == "X-Hop" {
			line += " with " + name
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, line)
}

// Take is what it saw since it was asked last.
func (s *Spy) Take() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := strings.Join(s.seen, ", ")
	s.seen = nil
	return out
}

// Proxy is what is attacked.
type Proxy struct {
	// Dial connects with and without TLS.
	Dial map[string]func() (net.Conn, error)
	// Wide says that HTTP/1.1 is read by net/http, which takes some of what
	// a narrow reader refuses. That it takes it in one meaning only is what
	// the rows show.
	Wide bool
	Spy  *Spy
}

// grace is how long more answers than expected are waited for; patience is for
// those that are expected.
const (
	grace    = 20 * time.Millisecond
	patience = 10 * time.Second
)

// Attack sends every row over every kind of connection, and says what was
// answered or seen that should not have been. After each the proxy must serve
// others as before.
func (p Proxy) Attack() (rows int, wrong []string) {
	for kind, dial := range p.Dial {
		for _, r := range all() {
			want := r.narrow
			if p.Wide && r.wide != nil {
				want = *r.wide
			}
			rows++
			answers, err := exchange(dial, r.send, want.answers)
			seen := p.Spy.Take()
			if err != nil || answers != want.answers || seen != want.seen {
				wrong = append(wrong, fmt.Sprintf("%s, %s: answers %q (%v), back end %q; want %q, %q", r.what, kind, answers, err, seen, want.answers, want.seen))
			}
			if answers, err := exchange(dial, get("/healthy"), "200"); answers != "200" || err != nil || p.Spy.Take() != "GET /healthy []" {
				wrong = append(wrong, fmt.Sprintf("after %s, %s: another client is answered with %q (%v)", r.what, kind, answers, err))
			}
		}
	}
	return rows, wrong
}

// exchange sends bytes and returns the status of each answer.
func exchange(dial func() (net.Conn, error), text, want string) (string, error) {
	c, err := dial()
	if err != nil {
		return "", err
	}
	defer c.Close()
	// A proxy that has had enough may close under it.
	go func() { _, _ = io.WriteString(c, text) }()
	var got bytes.Buffer
	buf := make([]byte, 4096)
	for end := time.Now().Add(patience); time.Now().Before(end); {
		limit := patience
		if Statuses(got.Bytes()) == want {
			limit = grace
			end = time.Now()
		}
		_ = c.SetReadDeadline(time.Now().Add(limit))
		n, err := c.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			break
		}
	}
	return Statuses(got.Bytes()), nil
}

// Statuses are the status codes of the answers in raw bytes.
func Statuses(raw []byte) string {
	var list []string
	for br := bufio.NewReader(bytes.NewReader(raw)); ; {
		resp, err := http.ReadResponse(br, nil)
		if err != nil {
			return strings.Join(list, " ")
		}
		list = append(list, resp.Status[:3])
		_, err = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if err != nil {
			return strings.Join(list, " ") + " cut"
		}
	}
}
