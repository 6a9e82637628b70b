package scale

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/bench/scale/simulated"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

const (
	// crowdNumber is the address number of many readers' node.
	crowdNumber = 102
	metrics     = "http://127.0.0.1:9410/metrics"
	limit       = 5 * time.Minute
	// settle is how long a start may keep the daemon busy.
	settle = 10 * time.Second
)

// lab is a cluster of a size, and one of its nodes that is real.
type lab struct {
	plane.Plane
	node    *cni.Node
	size    int // other nodes
	cluster *simulated.Cluster
}

func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	l.cluster = simulated.New(&l.Plane, l.size)
	if err := l.Up(ctx, t); err != nil {
		return err
	}
	if l.node, err = cni.NewNode(filepath.Join(l.Dir, simulated.SelfName), l.Dir); err != nil {
		return err
	}
	l.OnClose(l.node.Close)
	return l.Join(l.node, simulated.Number)
}

// daemon starts poplind where it has nothing in place, nor on disk.
func (l *lab) daemon(policies bool) (*process.Process, error) {
	dir := filepath.Join(l.Dir, "state")
	if err := errors.Join(os.RemoveAll(dir), os.MkdirAll(dir, 0o700), l.clear()); err != nil {
		return nil, err
	}
	config := filepath.Join(l.Dir, "config.yaml")
	text := fmt.Sprintf("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\ncni: {confDir: %s}\npolicy: {enabled: %v}\n", dir, policies)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return process.Start(l.node, filepath.Join(l.Dir, "poplind.log"), []string{"NODE_NAME=" + simulated.SelfName},
		filepath.Join(l.Dir, "poplind"), "-config", config, "-kubeconfig", l.PKI(pki.AdminKubeconfig),
		"-state-dir", dir, "-socket", filepath.Join(l.Dir, "poplind.sock"))
}

// clear takes the device and the routes of a daemon before out of the kernel.
func (l *lab) clear() error {
	device, err := l.node.Link.LinkByName("poplin-vx")
	if missing := (netlink.LinkNotFoundError{}); errors.As(err, &missing) {
		return nil
	}
	if err != nil {
		return err
	}
	return l.node.Link.LinkDel(device)
}

// inSync waits until the node has all that it should.
func (l *lab) inSync(ctx context.Context, run *process.Process, policies bool) error {
	return api.Poll(ctx, limit, "the daemon", func(ctx context.Context) error {
		if err := run.Alive(); err != nil {
			return err
		}
		now, err := plane.Metrics(ctx, l.node, metrics)
		if err != nil {
			return err
		}
		want := map[string]float64{"poplin_peers": float64(l.size), "poplin_sync_full_proxy_rules_duration_seconds_count": 1}
		if policies {
			want["poplin_policies"] = float64(simulated.PoliciesEach * l.cluster.Spaces())
		}
		for name, n := range want {
			if now[name] < n {
				return fmt.Errorf("%s is %v, want %v; %v NodeNetworks are refused", name, now[name], n, now["poplin_peers_refused"])
			}
		}
		_, err = os.Stat(filepath.Join(l.Dir, "state", conflist.File))
		if errors.Is(err, fs.ErrNotExist) {
			err = errors.New("pods may not start yet")
		}
		return err
	})
}

// look is what there is to count at one moment.
type look struct {
	at       time.Time
	used     process.Usage
	received uint64 // bytes that came to the node
	requests, events,
	watches, writes float64
}

func (l *lab) look(ctx context.Context, run *process.Process) (k look, err error) {
	k.at = time.Now()
	if k.used, err = run.Usage(); err != nil {
		return k, err
	}
	if k.received, err = received(l.node); err != nil {
		return k, err
	}
	own, err := plane.Metrics(ctx, l.node, metrics)
	if err != nil {
		return k, err
	}
	k.requests, k.events = own.Sum("poplin_api_requests_total"), own.Sum("poplin_api_events_total")
	server, err := l.Metrics(ctx)
	if err != nil {
		return k, err
	}
	k.watches = watches(server)
	// What nobody but a daemon writes while only churn goes on.
	for _, resource := range []string{`resource="nodenetworks"`, `resource="events"`} {
		for _, verb := range []string{`verb="POST"`, `verb="PUT"`, `verb="PATCH"`} {
			k.writes += server.Sum("apiserver_request_total", resource, verb)
		}
	}
	k.writes += server.Sum("apiserver_request_total", `resource="nodes"`, `verb="PATCH"`)
	return k, nil
}

func watches(server plane.Series) float64 {
	return server.Sum("apiserver_longrunning_requests", `verb="WATCH"`)
}

// received is what came to a node from the API server: no other node answers.
func received(n *cni.Node) (uint64, error) {
	eth0, err := n.Link.LinkByName("eth0")
	if err != nil {
		return 0, err
	}
	return eth0.Attrs().Statistics.RxBytes, nil
}

// result is what the daemon did among so many nodes.
type result struct {
	size int
	// start is until all is in place; first and ready are looks before and then.
	start             time.Duration
	first, ready      look
	began, ended      look    // of the time at rest
	late              float64 // the part of the churn that could not be made in time
	came, went, moved []time.Duration
	// bare is the same daemon without policies.
	bare   *result
	server process.Usage
}

// measure starts the daemon and looks at it.
func (l *lab) measure(ctx context.Context, steps *progress.Steps, o Options) (r *result, err error) {
	life := l.cluster.Live(ctx)
	defer func() { err = errors.Join(err, life.End()) }()
	if err := steps.Do("the daemon without policies", func() error {
		r, err = l.rest(ctx, o.rest()/2, false, nil)
		return err
	}); err != nil {
		return nil, err
	}
	bare := r
	if err := steps.Do("the daemon", func() error {
		r, err = l.rest(ctx, o.rest(), true, func(run *process.Process, r *result) error { return l.change(ctx, r, o.changes()) })
		return err
	}); err != nil {
		return nil, err
	}
	r.bare = bare
	r.late = life.Late()
	r.server, err = l.Server().Usage()
	return r, err
}

// rest starts the daemon, leaves it alone for a time, and does more.
func (l *lab) rest(ctx context.Context, rest time.Duration, policies bool, more func(*process.Process, *result) error) (*result, error) {
	r := &result{size: l.size}
	server, err := l.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	r.first.watches = watches(server)
	if r.first.received, err = received(l.node); err != nil {
		return nil, err
	}
	run, err := l.daemon(policies)
	if err != nil {
		return nil, err
	}
	defer run.Stop()
	if err := l.inSync(ctx, run, policies); err != nil {
		return nil, err
	}
	r.start = time.Since(run.Began)
	if r.ready, err = l.look(ctx, run); err != nil {
		return nil, err
	}
	time.Sleep(settle)
	if r.began, err = l.look(ctx, run); err != nil {
		return nil, err
	}
	time.Sleep(rest)
	if r.ended, err = l.look(ctx, run); err != nil {
		return nil, err
	}
	if more != nil {
		err = more(run, r)
	}
	return r, errors.Join(err, run.Alive())
}

// change has nodes come, move and go, each alone, and times the way of each
// into the kernel.
func (l *lab) change(ctx context.Context, r *result, n int) error {
	kernel, err := listen(l.node)
	if err != nil {
		return err
	}
	defer kernel.close()
	took := func(into *[]time.Duration, want []string, method, path string, o any) error {
		done, began := kernel.expect(want), time.Now()
		if err := l.API.Send(ctx, method, path, o, nil); err != nil {
			return err
		}
		select {
		case at := <-done:
			*into = append(*into, at.Sub(began))
		case <-time.After(30 * time.Second):
			return fmt.Errorf("%s %s: the kernel was not told within 30 s: %v", method, path, kernel.missing())
		case <-ctx.Done():
			return ctx.Err()
		}
		time.Sleep(100 * time.Millisecond) // so that each is a change of its own
		return nil
	}
	for i := range n {
		newcomer := simulated.Node(l.size + i)
		path := simulated.NetworksPath + "/" + newcomer.Name()
		if err := took(&r.came, entries(newcomer, true, newcomer.Address()), http.MethodPost, simulated.NetworksPath, newcomer.Network(newcomer.Address())); err != nil {
			return err
		}
		if err := took(&r.moved, []string{forwarding(newcomer, true, newcomer.Moved())},
			http.MethodPatch, path+"?fieldManager=bench&force=true", newcomer.Network(newcomer.Moved())); err != nil {
			return err
		}
		if err := took(&r.went, entries(newcomer, false, newcomer.Moved()), http.MethodDelete, path, nil); err != nil {
			return err
		}
	}
	return nil
}
