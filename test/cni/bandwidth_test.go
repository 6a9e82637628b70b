package cni_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/need"
)

// TestBandwidth moves the same bytes to and from a limited pod and one that is
// not: the first takes as long as its limit says, the other a fraction.
func TestBandwidth(t *testing.T) {
	need.Link(t, "ifb")
	n, l := hostPorts(t)
	const (
		megabit = 40
		size    = 4 << 20 // 0.8 s of it
	)
	limited, free := pod(t), pod(t)
	limited.Capabilities = map[string]any{"bandwidth": map[string]uint64{
		"ingressRate": megabit * 1e6, "ingressBurst": 4294967295, "egressRate": megabit * 1e6, "egressBurst": 800_000,
	}}
	r, rFree := add(t, n, l, limited), add(t, n, l, free)
	no(t, n.Check(l, limited))
	for _, like := range []int{0, 1} { // IPv4, IPv6
		to, from := r.IPs[like].Address.IP, rFree.IPs[like].Address.IP
		least := time.Duration(float64(size-1<<20) * 8 / (megabit * 1e6) * float64(time.Second))
		for _, row := range []struct {
			name           string
			server, client *cni.Pod
			addr           net.IP
		}{{"into the pod", limited, free, to}, {"out of the pod", free, limited, from}} {
			if took := transfer(t, row.server, row.client, row.addr, size); took < least || took > 10*least {
				t.Errorf("%s, %s: %d bytes took %v, want at least %v and not much more", row.name, row.addr, size, took, least)
			}
		}
	}
	other := pod(t)
	rOther := add(t, n, l, other)
	// The best of some, as other programs run on the machine.
	best := time.Hour
	for range 5 {
		best = min(best, transfer(t, other, free, rOther.IPs[0].Address.IP, size))
	}
	if best > 300*time.Millisecond {
		t.Errorf("between pods without limits: %d bytes took %v", size, best)
	}

	// CHECK sees what is missing.
	inner := link(t, n.Link, r.Interfaces[0].Name)
	queues, err := n.Link.QdiscList(inner)
	no(t, err)
	for _, q := range queues {
		if q.Type() == "tbf" {
			no(t, n.Link.QdiscDel(q))
		}
	}
	if err := n.Check(l, limited); err == nil || !strings.Contains(err.Error(), "no token bucket") {
		t.Errorf("without the bucket, CHECK said %v", err)
	}
	for _, p := range []*cni.Pod{limited, free, other, limited} {
		no(t, n.Del(l, p))
	}
	empty(t, n, limited, free, other)
}

// TestBandwidthEndsWithThePod: also where the link went first.
func TestBandwidthEndsWithThePod(t *testing.T) {
	need.Link(t, "ifb")
	n, l := hostPorts(t)
	p := pod(t)
	p.Capabilities = map[string]any{"bandwidth": map[string]uint64{"egressRate": 1e6}}
	r := add(t, n, l, p)
	no(t, n.Link.LinkDel(link(t, n.Link, r.Interfaces[0].Name)))
	if _, err := n.Link.LinkByName("plb" + r.Interfaces[0].Name[3:]); err != nil {
		t.Errorf("positive control: %v", err)
	}
	no(t, n.Del(l, p))
	empty(t, n, p)

	p.Capabilities = map[string]any{"bandwidth": map[string]uint64{"egressBurst": 1e6}}
	if _, err := n.Add(l, p); err == nil || !strings.Contains(err.Error(), "egressBurst: 1000000 bits without egressRate") {
		t.Errorf("burst without rate: %v", err)
	}
	empty(t, n, p)
}

// transfer is how long a client takes to send so many bytes.
func transfer(t *testing.T, server, client *cni.Pod, to net.IP, size int64) time.Duration {
	t.Helper()
	var l net.Listener
	var err error
	no(t, server.Do(func() { l, err = net.ListenTCP("tcp", &net.TCPAddr{IP: to}) }))
	no(t, err)
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			var n int64
			if n, err = io.Copy(io.Discard, c); n != size {
				err = errors.Join(err, fmt.Errorf("%d of %d bytes arrived", n, size))
			}
			c.Close()
		}
		done <- err
	}()
	start := time.Now()
	no(t, client.Do(func() {
		var c net.Conn
		if c, err = (&net.Dialer{Timeout: 3 * time.Second}).Dial("tcp", l.Addr().String()); err == nil {
			_ = c.SetDeadline(time.Now().Add(30 * time.Second))
			_, err = c.Write(make([]byte, size))
			c.Close()
		}
	}))
	no(t, err)
	no(t, <-done)
	return time.Since(start)
}
