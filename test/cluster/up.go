package cluster

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster/host"
	"poplin.dev/poplin/test/cluster/pki"
)

// Up makes a cluster and returns when its nodes are as ready as they can be:
// Ready, or NotReady without a network. When it fails it takes down what it
// made, unless Options.Keep.
func Up(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.complete()
	if err != nil {
		return nil, err
	}
	if err := host.Check(o.Nodes); err != nil {
		return nil, err
	}
	start := time.Now()
	s := &steps{out: o.Output}
	t, err := prepare(ctx, o.Version, false, s)
	if err != nil {
		return nil, err
	}
	network, err := findNetwork(o, t.root)
	if err != nil {
		return nil, err
	}
	lock, err := claim(o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	c, err := newCluster(state{Options: o, Kubernetes: t.kubernetes, Images: t.images, Archives: network.archives(), CoreDNS: t.source.CoreDNSName()})
	if err == nil {
		s.say("cluster %s: %s, %d nodes, %s, network %s, proxy %s", o.Name, c.layout, o.Nodes, o.Family, o.Network, o.Proxy)
		err = c.up(ctx, network, s)
	}
	if err != nil {
		return nil, fmt.Errorf("bring up cluster %s: %w", o.Name, c.failed(err, s))
	}
	s.line(time.Since(start), "cluster "+o.Name+" is up")
	return c, nil
}

// claim takes a name: the directory is made by one process only, and its lock
// says that the process still works on it.
func claim(name string) (*os.File, error) {
	if err := exists(name); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(runRoot, 0o755); err != nil {
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	if err := os.Mkdir(filepath.Join(runRoot, name), 0o755); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return nil, existsError(name)
		}
		return nil, fmt.Errorf("make cluster: %w", err)
	}
	return lock(name)
}

func exists(name string) error {
	for _, root := range []string{runRoot, diskRoot} {
		if _, err := os.Lstat(filepath.Join(root, name)); err == nil {
			return existsError(name)
		}
	}
	return nil
}

func existsError(name string) error {
	return fmt.Errorf("make cluster %s: it exists, or something is left of it; take it down first: cluster down --name %s", name, name)
}

// lock refuses when another process works on the cluster. A process that died
// holds no lock.
func lock(name string) (*os.File, error) {
	dir, err := os.Open(filepath.Join(runRoot, name))
	if err != nil {
		return nil, fmt.Errorf("lock cluster %s: %w", name, err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		dir.Close()
		return nil, fmt.Errorf("lock cluster %s: another command is working on it; wait for its end or stop it", name)
	}
	return dir, nil
}

// failed cleans up after an error, and says where the logs are.
func (c *Cluster) failed(err error, s *steps) error {
	if c == nil {
		return err
	}
	if c.Options.Keep {
		return fmt.Errorf("%w; it is kept, with its logs in %s, until: cluster down --name %s", err, c.Logs(), c.Options.Name)
	}
	// In a place of its own for each run: an older run's logs are not ours to remove.
	saved, saveErr := os.MkdirTemp("", "poplin-cluster-"+c.Options.Name+"-logs-")
	if saveErr == nil {
		saveErr = os.CopyFS(saved, os.DirFS(c.Logs()))
	}
	if saveErr == nil {
		err = fmt.Errorf("%w; its logs are in %s", err, saved)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if downErr := s.do("cleaned up", func() error { return remove(ctx, c.Options.Name) }); downErr != nil {
		return fmt.Errorf("%w; and cleaning up failed: %w", err, downErr)
	}
	return err
}

// up is everything after the decision to make a cluster.
func (c *Cluster) up(ctx context.Context, network *network, s *steps) error {
	for _, dir := range []string{c.processes(), c.Logs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directories: %w", err)
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := s.do("network between nodes", c.wire); err != nil {
		return err
	}
	if err := s.do("certificates", c.certificates); err != nil {
		return err
	}
	if err := s.do("namespaces of nodes", func() error {
		var g errgroup.Group
		for i := range c.plan.hosts {
			g.Go(func() error { return c.boot(i) })
		}
		return g.Wait()
	}); err != nil {
		return err
	}
	ready := make(chan struct{}) // closed when the API server answers
	g, together := errgroup.WithContext(ctx)
	g.Go(func() error { return c.startControlPlane(together, network, ready, s) })
	for i := range c.plan.hosts {
		g.Go(func() error { return c.startWorker(together, i, ready, s) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.settle(ctx, network, s)
}

// wire makes the underlay and every node's network namespace.
func (c *Cluster) wire() error {
	if err := c.plan.lan.Make(); err != nil {
		return err
	}
	if c.Options.Routed > 0 {
		if err := c.plan.lan.ConnectRouter(c.plan.router); err != nil {
			return err
		}
	}
	for i := range c.plan.hosts {
		if err := c.connect(i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) connect(i int) error {
	if i+1 == c.Options.Routed {
		return c.plan.router.ConnectBehind(c.plan.hosts[i])
	}
	return c.plan.lan.Connect(c.plan.hosts[i])
}

func (c *Cluster) certificates() error {
	addresses := append(c.plan.nodeAddresses(0), nth(c.plan.services, 1)...)
	addresses = append(addresses, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	return pki.Write(filepath.Join(c.disk(), "pki"), pki.Spec{
		Server:    c.plan.server(),
		Addresses: addresses,
		Names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		Nodes: c.Nodes(),
	})
}

// settle waits for what a user of the cluster would wait for.
func (c *Cluster) settle(ctx context.Context, network *network, s *steps) error {
	if err := s.do("nodes registered", func() error { return c.waitRegistered(ctx) }); err != nil {
		return err
	}
	if network == nil {
		s.say("nodes stay NotReady until a CNI network is installed")
		return c.waitServiceAccount(ctx)
	}
	if err := s.do("nodes Ready", func() error { return c.WaitReady(ctx) }); err != nil {
		return err
	}
	if err := c.waitServiceAccount(ctx); err != nil {
		return err
	}
	if c.Options.Proxy == "none" {
		return nil
	}
	return s.do("cluster DNS answers", func() error { return c.waitDNS(ctx) })
}
