package scale

import (
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/scale/simulated"
	"poplin.dev/poplin/test/cni"
)

// listener hears what the kernel of the daemon's node is told.
type listener struct {
	stop chan struct{}

	mu   sync.Mutex
	want map[string]bool
	done chan time.Time
}

func listen(on *cni.Node) (l *listener, err error) {
	l = &listener{stop: make(chan struct{})}
	routes, neighbours := make(chan netlink.RouteUpdate, 64), make(chan netlink.NeighUpdate, 64)
	in := on.Do(func() {
		if err = netlink.RouteSubscribe(routes, l.stop); err == nil {
			err = netlink.NeighSubscribe(neighbours, l.stop)
		}
	})
	if in != nil || err != nil {
		close(l.stop)
		return nil, fmt.Errorf("listen to the kernel: %w", firstOf(in, err))
	}
	go func() {
		for u := range routes {
			if u.Protocol == protocol && u.Dst != nil {
				l.heard(route(u.Type != unix.RTM_DELROUTE, u.Dst.String()))
			}
		}
	}()
	go func() {
		for u := range neighbours {
			l.heard(neighbour(u.Type != unix.RTM_DELNEIGH, u.Family == unix.AF_BRIDGE, u.IP, u.HardwareAddr))
		}
	}()
	return l, nil
}

func firstOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// protocol is that of the daemon's routes.
const protocol = 157

func verb(added bool) string {
	if added {
		return "add "
	}
	return "remove "
}

func route(added bool, dst string) string { return verb(added) + "route " + dst }

func neighbour(added, forwarding bool, ip net.IP, mac net.HardwareAddr) string {
	if !added {
		return verb(added) + "entry " + ip.String() // some kernels leave the MAC out
	}
	if forwarding {
		return verb(added) + "forwarding " + mac.String() + " " + ip.String()
	}
	return verb(added) + "neighbour " + ip.String() + " " + mac.String()
}

// entries are those of a node with its VTEP at an address, as they come or go.
func entries(n simulated.Node, added bool, address string) (list []string) {
	for _, r := range n.Ranges() {
		ip, dst, err := net.ParseCIDR(r)
		if err != nil {
			panic(err) // of our own making
		}
		list = append(list, route(added, dst.String()), neighbour(added, false, ip, hardware(n)))
	}
	return append(list, forwarding(n, added, address))
}

func hardware(n simulated.Node) net.HardwareAddr {
	mac, err := net.ParseMAC(n.MAC())
	if err != nil {
		panic(err) // of our own making
	}
	return mac
}

// forwarding is the way to the node's VTEP.
func forwarding(n simulated.Node, added bool, address string) string {
	return neighbour(added, true, net.ParseIP(address), hardware(n))
}

// expect returns a channel for the time when all of a list was heard.
func (l *listener) expect(list []string) <-chan time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.want, l.done = map[string]bool{}, make(chan time.Time, 1)
	for _, w := range list {
		l.want[w] = true
	}
	return l.done
}

func (l *listener) heard(what string) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.want[what] {
		return
	}
	delete(l.want, what)
	if len(l.want) == 0 {
		l.done <- now
	}
}

// missing is what was not heard yet.
func (l *listener) missing() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []string
	for w := range l.want {
		list = append(list, w)
	}
	return list
}

func (l *listener) close() { close(l.stop) }
