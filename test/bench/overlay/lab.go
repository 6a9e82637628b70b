package overlay

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

const (
	self     = "node-1"
	networks = "/apis/poplin.dev/v1alpha1/nodenetworks"
	metrics  = "http://127.0.0.1:9410/metrics"
	// atOnce is how many requests are on their way.
	atOnce = 16
)

// lab is the control plane, the daemon's node, and how many others there are.
type lab struct {
	plane.Plane
	node  *cni.Node
	peers int
}

func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	if err := l.Up(ctx, t); err != nil {
		return err
	}
	if l.node, err = cni.NewNode(filepath.Join(l.Dir, self), l.Dir); err != nil {
		return err
	}
	l.OnClose(l.node.Close)
	for _, dir := range []string{l.state(), l.conflists()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	config := fmt.Sprintf("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\nservices: {enabled: false}\ncni: {confDir: %s}\n", l.conflists())
	return errors.Join(
		os.WriteFile(l.config(), []byte(config), 0o600),
		l.Join(l.node, 1),
		l.Node(ctx, self, 1, plane.PodRange6(1)),
	)
}

func (l *lab) state() string     { return filepath.Join(l.Dir, "state") }
func (l *lab) conflists() string { return filepath.Join(l.Dir, "net.d") }
func (l *lab) conflist() string  { return filepath.Join(l.conflists(), conflist.File) }
func (l *lab) config() string    { return filepath.Join(l.Dir, "config.yaml") }

// grow adds nodes until there are so many others.
func (l *lab) grow(ctx context.Context, peers int) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := l.peers; i < peers; i++ {
		g.Go(func() error { return l.API.Send(inner, http.MethodPost, networks, network(i), nil) })
	}
	l.peers = peers
	return g.Wait()
}

func ranges(i int) []netip.Prefix {
	hi, lo := byte(i>>8), byte(i)
	return []netip.Prefix{
		netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 128 + hi, lo, 0}), 24),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: 1 + hi, 7: lo}), 64),
	}
}

func network(i int) map[string]any {
	name := fmt.Sprintf("peer-%d", i)
	return map[string]any{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": map[string]any{"name": name},
		"spec": map[string]any{
			"podCIDRs": ranges(i), "mtu": 1450,
			"vtep": map[string]any{"address": netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}), "mac": cluster.MACOf(name).String()},
		},
	}
}

// measure starts the daemon on a node without anything, and looks at it.
func (l *lab) measure(ctx context.Context, peers int, o Options) (r result, err error) {
	r.peers = peers
	if err := l.clear(); err != nil {
		return r, err
	}
	run, err := process.Start(l.node, filepath.Join(l.Dir, "poplind.log"), []string{"NODE_NAME=" + self},
		filepath.Join(l.Dir, "poplind"), "-config", l.config(), "-kubeconfig", l.PKI(pki.AdminKubeconfig),
		"-state-dir", l.state(), "-socket", filepath.Join(l.Dir, "poplind.sock"))
	if err != nil {
		return r, err
	}
	defer run.Stop()
	if err := l.wait(ctx, run, peers); err != nil {
		return r, err
	}
	r.start = time.Since(run.Began)
	took, err := plane.Metric(ctx, l.node, metrics, `poplin_pass_duration_seconds_sum{task="overlay"}`)
	if err != nil {
		return r, err
	}
	r.pass = time.Duration(took * float64(time.Second))
	if r.started, err = run.Usage(); err != nil {
		return r, err
	}
	if r.join, r.joinCPU, err = l.joins(ctx, run, o.joins()); err != nil {
		return r, err
	}
	if r.idle, r.pods, err = l.rest(run, o.rest()); err != nil {
		return r, err
	}
	r.resting, err = run.Usage()
	return r, err
}

// rest is the part of a core that the daemon uses while nothing happens,
// without pods and on a full node.
func (l *lab) rest(run *process.Process, each time.Duration) (without, with float64, err error) {
	for range turns {
		once, err := idle(run, each)
		if err != nil {
			return 0, 0, err
		}
		without += once / turns
		stop, err := l.populate()
		if err == nil {
			once, err = idle(run, each)
		}
		stop()
		if err != nil {
			return 0, 0, err
		}
		with += once / turns
	}
	return without, with, nil
}

// wait returns when every peer is in the kernel and the runtime may start pods.
// The daemon does not call itself ready: no peer answers it.
func (l *lab) wait(ctx context.Context, run *process.Process, peers int) error {
	return api.Poll(ctx, time.Minute, "the daemon", func(ctx context.Context) error {
		if err := run.Alive(); err != nil {
			return err
		}
		now, err := plane.Metric(ctx, l.node, metrics, "poplin_peers")
		if err == nil && int(now) != peers {
			err = fmt.Errorf("%v peers, want %d", now, peers)
		}
		if err != nil {
			return err
		}
		_, err = os.Stat(l.conflist())
		return err
	})
}

// clear takes away what a daemon before left.
func (l *lab) clear() error {
	if err := os.Remove(l.conflist()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	routes, err := l.node.Link.RouteListFiltered(netlink.FAMILY_ALL, &netlink.Route{Protocol: 157}, netlink.RT_FILTER_PROTOCOL)
	if err != nil {
		return err
	}
	for _, r := range routes {
		if err := l.node.Link.RouteDel(&r); err != nil {
			return err
		}
	}
	var missing netlink.LinkNotFoundError
	device, err := l.node.Link.LinkByName("poplin-vx")
	switch {
	case errors.As(err, &missing):
		return nil
	case err != nil:
		return err
	}
	return l.node.Link.LinkDel(device)
}

// settle is how long a change may keep the daemon busy.
const settle = 3 * time.Second

// idle is the part of a core that a process uses once what was begun before
// has ended.
func idle(run *process.Process, rest time.Duration) (float64, error) {
	time.Sleep(settle)
	before, err := run.Usage()
	if err != nil {
		return 0, err
	}
	time.Sleep(rest)
	after, err := run.Usage()
	return (after.CPU - before.CPU).Seconds() / rest.Seconds(), err
}

// joins has nodes join and leave, and times the way of each into the kernel.
func (l *lab) joins(ctx context.Context, run *process.Process, n int) (took []time.Duration, cpu time.Duration, err error) {
	before, err := run.Usage()
	if err != nil {
		return nil, 0, err
	}
	for i := range n {
		newcomer := l.peers + i
		begun := time.Now()
		if err := l.API.Send(ctx, http.MethodPost, networks, network(newcomer), nil); err != nil {
			return nil, 0, err
		}
		if err := l.routed(newcomer, true); err != nil {
			return nil, 0, err
		}
		took = append(took, time.Since(begun))
		if err := l.API.Send(ctx, http.MethodDelete, fmt.Sprintf("%s/peer-%d", networks, newcomer), nil, nil); err != nil {
			return nil, 0, err
		}
		if err := l.routed(newcomer, false); err != nil {
			return nil, 0, err
		}
		time.Sleep(100 * time.Millisecond) // so that each is a change of its own
	}
	after, err := run.Usage()
	return took, (after.CPU - before.CPU) / time.Duration(2*n), err
}

// routed waits until the last of a node's routes is there, or gone.
func (l *lab) routed(i int, want bool) error {
	last := ranges(i)[1].Addr().Next().AsSlice()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(200 * time.Microsecond) {
		routes, err := l.node.Link.RouteGet(last)
		if there := err == nil && len(routes) > 0 && routes[0].Protocol == 157; there == want {
			return nil
		}
	}
	return fmt.Errorf("node %d: not within 10 s: route there: %v", i, want)
}

// populate makes the node's end of as many links as a full node has.
func (l *lab) populate() (stop func(), err error) {
	far, err := cni.NewPod("far")
	if err != nil {
		return func() {}, err
	}
	ns, err := os.Open(far.Path())
	if err != nil {
		return far.Close, err
	}
	defer ns.Close()
	for i := range fullNode {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.Group, attrs.MTU = fmt.Sprintf("plw%d", i), 0x706c, 1450
		if err := l.node.Link.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf("far%d", i), PeerNamespace: netlink.NsFd(int(ns.Fd()))}); err != nil {
			return far.Close, fmt.Errorf("add link of a pod: %w", err)
		}
	}
	return far.Close, nil
}
