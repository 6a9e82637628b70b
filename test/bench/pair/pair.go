// Package pair is two pods of one node of a bench, a client and its server,
// made by the real plugin. Inputs are a control plane and one of its nodes;
// outputs are the time that connections and a stream from the one to the other
// take. It refuses to know what stands between them, and changes nothing there.
package pair

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/cni"
)

// Ports of the server: one answers a connection, the other takes a stream.
const (
	Port       = 8080
	streamPort = 8081
)

// Pair is the two pods.
type Pair struct {
	Client, Server netip.Addr

	client *cni.Pod
}

// New makes them on the n-th node of a control plane, which ends them.
func New(l *plane.Plane, node *cni.Node, n byte) (p *Pair, err error) {
	p = &Pair{}
	client, addrs, err := Pod(l, node, n, "client")
	if err != nil {
		return nil, err
	}
	p.client, p.Client = client, addrs[0]
	server, addrs, err := Pod(l, node, n, "server")
	if err != nil {
		return nil, err
	}
	p.Server = addrs[0]
	return p, errors.Join(serve(l, server, Port, greet), serve(l, server, streamPort, swallow))
}

// Pod makes one pod on the n-th node of a control plane, which ends it, with an
// address of the node's range of IPv4 and of each that is given.
func Pod(l *plane.Plane, node *cni.Node, n byte, name string, more ...netip.Prefix) (*cni.Pod, []netip.Addr, error) {
	var ranges []string
	for _, r := range append([]netip.Prefix{plane.PodRange(n)}, more...) {
		ranges = append(ranges, fmt.Sprintf(`[{"subnet":%q}]`, r))
	}
	list, err := cni.List(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"poplin","mtu":1450,"nodeAddresses":[%q],`+
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[%s]}}]}`,
		plane.NodeAddress(n), filepath.Join(node.Dir, "ipam"), strings.Join(ranges, ",")))
	if err != nil {
		return nil, nil, err
	}
	pod, err := cni.NewPod(fmt.Sprintf("%s-%d", name, n))
	if err != nil {
		return nil, nil, err
	}
	l.OnClose(pod.Close)
	result, err := node.Add(list, pod)
	if err != nil {
		return nil, nil, err
	}
	var addrs []netip.Addr
	for _, ip := range result.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		addrs = append(addrs, a.Unmap())
	}
	return pod, addrs, nil
}

// greet says one byte.
func greet(c net.Conn) { _, _ = c.Write([]byte{'.'}) }

// swallow says one byte after the last one.
func swallow(c net.Conn) {
	if _, err := io.Copy(io.Discard, c); err == nil {
		greet(c)
	}
}

func serve(l *plane.Plane, pod *cni.Pod, port int, each func(net.Conn)) error {
	var server net.Listener
	var err error
	if err := errors.Join(pod.Do(func() { server, err = net.Listen("tcp4", fmt.Sprint(":", port)) }), err); err != nil {
		return err
	}
	l.OnClose(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			each(c)
			c.Close()
		}
	}()
	return nil
}

// Connect makes connections to an address that leads to the server, one after
// the other, and returns what each took.
func (p *Pair) Connect(to netip.AddrPort, times int) (took []time.Duration, err error) {
	in := p.client.Do(func() {
		for range times {
			began := time.Now()
			if err = connection(to); err != nil {
				err = fmt.Errorf("connect to %s: %w", to, err)
				return
			}
			took = append(took, time.Since(began))
		}
	})
	return took, errors.Join(in, err)
}

// connection connects on this thread, reads the answer and ends by a reset,
// so that no port rests.
func connection(to netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	_, err = unix.Read(fd, make([]byte, 1))
	return err
}

// chunk is what a stream writes at once.
const chunk = 128 << 10

// Stream sends so many bytes to the server, and returns what it took until
// the last one was there.
func (p *Pair) Stream(size int) (took time.Duration, err error) {
	in := p.client.Do(func() {
		var c net.Conn
		if c, err = net.Dial("tcp4", netip.AddrPortFrom(p.Server, streamPort).String()); err != nil {
			return
		}
		defer c.Close()
		began, data := time.Now(), make([]byte, chunk)
		for left := size; left > 0 && err == nil; left -= chunk {
			_, err = c.Write(data[:min(left, chunk)])
		}
		if err = errors.Join(err, c.(*net.TCPConn).CloseWrite()); err == nil {
			_, err = io.ReadFull(c, data[:1])
		}
		took = time.Since(began)
	})
	return took, errors.Join(in, err)
}
