package services

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cni"
)

// way is one way from a pod to another pod of its node.
type way struct {
	name string
	to   netip.AddrPort
	took []time.Duration // of single connections
	turn []time.Duration // of batches
}

// rate is connections per second, one after the other, in most turns.
func (w way) rate() float64 { return batch / report.Quantile(w.turn, 0.5).Seconds() }

// of is the part of another way's rate that this one has, turn by turn: the
// machine's speed changes between them.
func (w way) of(other way) float64 {
	ratios := make([]float64, len(w.turn))
	for i, d := range w.turn {
		ratios[i] = float64(other.turn[i]) / float64(d)
	}
	slices.Sort(ratios)
	return ratios[len(ratios)/2]
}

// echoes are the Services that lead to a pod: of each node one whose clients
// go anywhere, and one whose clients stay.
const echoes = 4

func echo(n byte, sticky bool) (name string, a netip.Addr) {
	if sticky {
		return fmt.Sprintf("sticky-%d", n), netip.AddrFrom4([4]byte{10, 111, 1, n})
	}
	return fmt.Sprintf("echo-%d", n), netip.AddrFrom4([4]byte{10, 111, 0, n})
}

// podPair is a client and a server on the proxy's node.
type podPair struct {
	client *cni.Pod
	server netip.AddrPort
}

const echoPort = 8080

// populate makes two pods on a proxy's node, and the Services that lead to
// the second.
func (l *lab) populate(ctx context.Context, p *proxy) error {
	list, err := cni.List(fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"poplin","mtu":1450,"nodeAddresses":[%q],`+
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":%q}]]}}]}`,
		plane.NodeAddress(p.n), filepath.Join(l.home(p), "ipam"), plane.PodRange(p.n)))
	if err != nil {
		return err
	}
	if err := errors.Join(p.node.Do(func() { err = os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0) }), err); err != nil {
		return err
	}
	for _, name := range []string{"client", "server"} {
		pod, err := cni.NewPod(fmt.Sprintf("%s-%d", name, p.n))
		if err != nil {
			return err
		}
		l.OnClose(pod.Close)
		result, err := p.node.Add(list, pod)
		if err != nil {
			return err
		}
		if name == "client" {
			p.pods.client = pod
			continue
		}
		a, _ := netip.AddrFromSlice(result.IPs[0].Address.IP)
		p.pods.server = netip.AddrPortFrom(a.Unmap(), echoPort)
		if err := l.answer(pod); err != nil {
			return err
		}
	}
	for _, sticky := range []bool{false, true} {
		name, a := echo(p.n, sticky)
		spec := object{"clusterIP": a.String(), "ports": []object{{"name": "http", "port": 80, "protocol": "TCP"}}}
		if sticky {
			spec["sessionAffinity"] = "ClientIP"
		}
		s := object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name}, "spec": spec}
		if err := l.API.Send(ctx, http.MethodPost, servicesPath, s, nil); err != nil {
			return err
		}
		part := sliceFor(name, name, echoPort, []object{endpoint(p.pods.server.Addr(), fmt.Sprint("node-", p.n))})
		if err := l.API.Send(ctx, http.MethodPost, slicesPath, part, nil); err != nil {
			return err
		}
	}
	return nil
}

// answer says one byte to whoever connects.
func (l *lab) answer(pod *cni.Pod) error {
	var server net.Listener
	var err error
	if err := errors.Join(pod.Do(func() { server, err = net.Listen("tcp4", fmt.Sprint(":", echoPort)) }), err); err != nil {
		return err
	}
	l.OnClose(func() { server.Close() })
	go func() {
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte{'.'})
			c.Close()
		}
	}()
	return nil
}

const (
	// batch is how many connections go one way before it is the next one's turn.
	batch   = 50
	batches = 100
)

// connect makes connections straight and through Services, by turns.
func (p *proxy) connect() ([]way, error) {
	ways := []way{{name: "straight", to: p.pods.server}}
	for _, sticky := range []bool{false, true} {
		_, a := echo(p.n, sticky)
		ways = append(ways, way{name: map[bool]string{false: "Service", true: "Service with affinity"}[sticky], to: netip.AddrPortFrom(a, 80)})
	}
	var err error
	in := p.pods.client.Do(func() {
		for range batches {
			for i := range ways {
				w := &ways[i]
				turn := time.Now()
				for range batch {
					began := time.Now()
					if err = connection(w.to); err != nil {
						err = fmt.Errorf("connect to %s (%s): %w", w.to, w.name, err)
						return
					}
					w.took = append(w.took, time.Since(began))
				}
				w.turn = append(w.turn, time.Since(turn))
			}
		}
	})
	return ways, errors.Join(in, err)
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
