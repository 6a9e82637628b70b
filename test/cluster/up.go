package cluster

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/cluster/host"
	"poplin.dev/poplin/test/cluster/manifest"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/remains"
	"poplin.dev/poplin/test/cluster/tools"
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
	c, err := newCluster(state{Options: o})
	if err != nil {
		return nil, err
	}
	start := time.Now()
	s := progress.New(o.Output)
	t, err := tools.Prepare(ctx, tools.Want{Kubernetes: o.Version, Containerd: o.Runtime == RuntimeContainerd2}, s)
	if err != nil {
		return nil, err
	}
	c.Kubernetes, c.Containerd, c.Images, c.CoreDNS = t.Kubernetes, t.Containerd, t.Images, t.CoreDNS
	var poplin *manifest.Poplin
	if o.Network == "poplin" {
		if poplin, err = manifest.Find(t.Root, o.Image, o.Manifest, manifest.Settings{Server: c.Server(), Services: o.Proxy == "poplin"}); err != nil {
			return nil, err
		}
		c.Archives = []string{poplin.Image}
	}
	lock, err := place.Claim(o.Name)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	s.Say("cluster %s: %s, %d nodes, %s, network %s, proxy %s", o.Name, c.layout, o.Nodes, o.Family, o.Network, o.Proxy)
	if err := c.up(ctx, poplin, s); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("interrupted: %w", err)
		}
		return nil, fmt.Errorf("bring up cluster %s: %w", o.Name, c.failed(err, s))
	}
	s.Line(time.Since(start), "cluster "+o.Name+" is up")
	return c, nil
}

// failed cleans up after an error, and says where the logs are.
func (c *Cluster) failed(err error, s *progress.Steps) error {
	if c.Options.Keep {
		return fmt.Errorf("%w; it is kept, with its logs in %s, until: cluster down --name %s", err, c.Logs(), c.Options.Name)
	}
	if saved, saveErr := place.Save(c.Options.Name, c.Logs()); saveErr == nil {
		err = fmt.Errorf("%w; its logs are in %s", err, saved)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if downErr := s.Do("cleaned up", func() error { return remains.Remove(ctx, c.Options.Name) }); downErr != nil {
		return fmt.Errorf("%w; and cleaning up failed: %w", err, downErr)
	}
	return err
}

// up is everything after the decision to make a cluster.
func (c *Cluster) up(ctx context.Context, poplin *manifest.Poplin, s *progress.Steps) error {
	for _, dir := range []string{c.processes(), c.Logs()} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make directories: %w", err)
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := s.Do("network between nodes", c.wire); err != nil {
		return err
	}
	if err := s.Do("certificates", c.certificates); err != nil {
		return err
	}
	if err := s.Do("namespaces of nodes", func() error {
		var g errgroup.Group
		for i := range c.plan.Hosts {
			g.Go(func() error { return c.boot(i) })
		}
		return g.Wait()
	}); err != nil {
		return err
	}
	ready := make(chan struct{}) // closed when the API server answers
	g, together := errgroup.WithContext(ctx)
	g.Go(func() error { return c.startControlPlane(together, poplin, ready, s) })
	for i := range c.plan.Hosts {
		g.Go(func() error { return c.startWorker(together, i, ready, s) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return c.settle(ctx, s)
}

// wire makes the underlay and every node's network namespace.
func (c *Cluster) wire() error {
	if err := c.plan.LAN.Make(); err != nil {
		return err
	}
	if c.Options.Routed > 0 {
		if err := c.plan.LAN.ConnectRouter(c.plan.Router); err != nil {
			return err
		}
	}
	for i := range c.plan.Hosts {
		if err := c.connect(i); err != nil {
			return err
		}
	}
	return nil
}

func (c *Cluster) connect(i int) error {
	if i+1 == c.Options.Routed {
		return c.plan.Router.ConnectBehind(c.plan.Hosts[i])
	}
	return c.plan.LAN.Connect(c.plan.Hosts[i])
}

func (c *Cluster) certificates() error {
	addresses := append(c.plan.NodeAddresses(0), plan.Nth(c.plan.Services, 1)...)
	addresses = append(addresses, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback())
	return pki.Write(filepath.Join(c.disk(), "pki"), pki.Spec{
		Server:    c.Server(),
		Addresses: addresses,
		Names: []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local"},
		Nodes: c.Nodes(),
	})
}

// settle waits for what a user of the cluster would wait for.
func (c *Cluster) settle(ctx context.Context, s *progress.Steps) error {
	if err := s.Do("nodes registered", func() error { return c.waitRegistered(ctx) }); err != nil {
		return err
	}
	if c.Options.Network == "none" {
		s.Say("nodes stay NotReady until a CNI network is installed")
		return c.waitServiceAccount(ctx)
	}
	if err := s.Do("nodes Ready", func() error { return c.WaitReady(ctx) }); err != nil {
		return err
	}
	if err := c.waitServiceAccount(ctx); err != nil {
		return err
	}
	if c.Options.Proxy == "none" {
		return nil
	}
	return s.Do("cluster DNS answers", func() error { return c.waitDNS(ctx) })
}

// Tools installs and builds everything that Up needs and what else is wanted; it
// starts nothing.
func Tools(ctx context.Context, want tools.Want, out io.Writer) error {
	if err := host.Check(1); err != nil {
		return err
	}
	_, err := tools.Prepare(ctx, want, progress.New(out))
	return err
}

// ProjectRoot is the directory of the project's go.mod.
func ProjectRoot() (string, error) { return tools.ProjectRoot() }
