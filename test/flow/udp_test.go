package flow

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/flows"
)

// TestUDPFlowsEndWithTheirEndpoint: a client that never pauses, from one and
// the same port, as DNS and QUIC clients do.
func TestUDPFlowsEndWithTheirEndpoint(t *testing.T) {
	l := newLab(t)
	var ct *flows.Conn
	if err := l.node.Do(func() (err error) { ct, err = flows.Open(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ct.Close() })
	set := func(endpoints ...string) (ended int) {
		t.Helper()
		o := serviceOf(overUDP, endpoints...)
		if endpoints == nil {
			l.table.Delete(o.Key)
		} else {
			l.table.Set(o.Service, o.slices)
		}
		l.sync(t)
		if !l.table.EndsFlows() {
			t.Error("the table does not say that flows may end")
		}
		ended, err := ct.EndUDP(l.table.Stale)
		if err != nil {
			t.Fatal(err)
		}
		l.table.FlowsEnded()
		return ended
	}
	for _, ipv6 := range []bool{false, true} {
		for _, way := range []flow{{"pod2", "vip", 80, ""}, {"client", "node", 30080, ""}} {
			t.Run(fmt.Sprint("IPv6 ", ipv6, " ", way.to), func(t *testing.T) {
				set("pod1")
				var conn *net.UDPConn
				if err := l.homes[way.from].Do(func() (err error) {
					conn, err = net.DialUDP("udp", &net.UDPAddr{IP: at(way.from, ipv6).AsSlice()}, &net.UDPAddr{IP: at(way.to, ipv6).AsSlice(), Port: int(way.port)})
					return err
				}); err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				expect := func(want string) {
					t.Helper()
					if got := exchange(conn); !strings.HasPrefix(got, want) {
						t.Errorf("got %q, want %q", got, want)
					}
				}
				expect("pod1")
				expect("pod1")
				if n := set("pod1!", "remote"); n != 0 {
					t.Errorf("%d flows to a draining endpoint ended", n)
				}
				expect("pod1")
				if n := set("pod1?", "remote"); n == 0 {
					t.Error("no flow ended with the endpoint")
				}
				expect("remote")
				set("remote?") // none at all
				expect("refused")
				set("pod1")
				expect("pod1")
				set() // deleted
				if got := exchange(conn); strings.HasPrefix(got, "pod1") {
					t.Errorf("after the Service's end %s", got)
				}
			})
		}
	}
}

// exchange asks until there is an answer to this question.
func exchange(c *net.UDPConn) string {
	c.Write([]byte("?")) // may report the refusal of the last question
	deadline := time.Now().Add(2 * patience)
	buf := make([]byte, 64)
	for {
		c.SetReadDeadline(deadline)
		n, err := c.Read(buf)
		switch {
		case err == nil:
			return string(buf[:n])
		case errors.Is(err, unix.ECONNREFUSED):
			return "refused"
		default:
			return "silence"
		}
	}
}
