package netns

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// capture looks at every frame on the bridge and keeps a line for each kind
// that is not VXLAN between nodes' addresses.
type capture struct {
	fd    int
	ended chan struct{}

	mu      sync.Mutex
	vxlan   int
	strange map[string]int
}

func newCapture(t testing.TB, l *lab) *capture {
	t.Helper()
	c := &capture{ended: make(chan struct{}), strange: map[string]int{}}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	err := l.wire.Do(func() (err error) {
		if c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		// Wakes the reader now and then, so that it sees the end.
		return unix.SetsockoptTimeval(c.fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000})
	})
	if err != nil {
		t.Fatalf("open packet socket: %v", err)
	}
	stop := make(chan struct{})
	go func() {
		defer close(c.ended)
		buf := make([]byte, 65536)
		for {
			n, _, err := unix.Recvfrom(c.fd, buf, 0)
			if err == nil {
				c.judge(buf[:n])
				continue
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	}()
	t.Cleanup(func() { close(stop); <-c.ended; unix.Close(c.fd) })
	return c
}

// judge sorts a frame.
func (c *capture) judge(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(frame) < 14 {
		return
	}
	kind, p := binary.BigEndian.Uint16(frame[12:]), frame[14:]
	var (
		src, dst netip.Addr
		proto    byte
	)
	switch {
	case kind == unix.ETH_P_ARP:
		return
	case kind == unix.ETH_P_IP && len(p) >= 20:
		src, _ = netip.AddrFromSlice(p[12:16])
		dst, _ = netip.AddrFromSlice(p[16:20])
		proto, p = p[9], p[int(p[0]&15)*4:]
		if proto == unix.IPPROTO_IGMP {
			return // of the bridge itself
		}
	case kind == unix.ETH_P_IPV6 && len(p) >= 40:
		src, _ = netip.AddrFromSlice(p[8:24])
		dst, _ = netip.AddrFromSlice(p[24:40])
		proto, p = p[6], p[40:]
		// Neighbour discovery and multicast listener reports of the nodes.
		if (proto == unix.IPPROTO_ICMPV6 || proto == unix.IPPROTO_HOPOPTS) && !inPods(src) && !inPods(dst) {
			return
		}
	default:
		c.strange[fmt.Sprintf("ether type %#x", kind)]++
		return
	}
	if proto == unix.IPPROTO_UDP && len(p) >= 8 && binary.BigEndian.Uint16(p[2:]) == 8472 && inNodes(src) && inNodes(dst) {
		c.vxlan++
		return
	}
	c.strange[fmt.Sprintf("%s to %s protocol %d", src, dst, proto)]++
}

func inPods(a netip.Addr) bool {
	return netip.MustParsePrefix("10.244.0.0/16").Contains(a) || netip.MustParsePrefix("fd00:10:244::/48").Contains(a)
}

func inNodes(a netip.Addr) bool {
	return netip.MustParsePrefix("192.0.2.0/24").Contains(a) || netip.MustParsePrefix("2001:db8::/64").Contains(a)
}

// onlyVXLAN asserts what was seen so far.
func (c *capture) onlyVXLAN(t testing.TB) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vxlan == 0 {
		t.Error("the capture saw no VXLAN at all")
	}
	for what, n := range c.strange {
		t.Errorf("on the underlay: %s, %d frames", what, n)
	}
}
