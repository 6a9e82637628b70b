package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/host"
	"poplin.dev/poplin/test/cluster/images"
	"poplin.dev/poplin/test/cluster/node"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/process"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/underlay"
)

// cniPlugins is where Debian's containernetworking-plugins are.
const cniPlugins = "/usr/lib/cni"

func (c *Cluster) nodeDisk(i int) string { return filepath.Join(c.disk(), plan.NodeName(i+1)) }

// boot makes a node's namespaces, with its anchor in them.
func (c *Cluster) boot(i int) error {
	name := plan.NodeName(i + 1)
	if err := c.layout.Make(c.cgroup(name)); err != nil {
		return err
	}
	leaf, err := c.leafOf(name)
	if err != nil {
		return err
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n"
	for _, address := range c.plan.NodeAddresses(i) {
		hosts += fmt.Sprintf("%s %s\n", address, name)
	}
	config := node.Config{
		Name: name, Cluster: c.Options.Name, Namespace: c.Namespace(name), Disk: c.nodeDisk(i), Hosts: hosts,
		Nameserver: c.plan.LAN.Gateways[0].Addr().String(), // nobody answers there: no test depends on the outside
		Share:      c.shared(),
		CNIPlugins: cniPlugins,
	}
	var anchor process.Record
	if err := node.Boot(config, func() (err error) {
		anchor, err = process.Start(process.Spec{
			Name: anchorName(name), Args: []string{"sleep", "infinity"}, Log: c.log(anchorName(name)), Cgroup: leaf,
		})
		return err
	}); err != nil {
		return err
	}
	return anchor.Save(c.processes())
}

// shared are the machine's directories that nodes see.
func (c *Cluster) shared() []string {
	dirs := []string{c.disk(), c.Kubernetes.Dir}
	if c.Options.Runtime == RuntimeContainerd2 {
		dirs = append(dirs, c.Containerd.Dir)
	}
	return dirs
}

// startWorker starts the daemons of a node that has booted. The images that the
// first pods need are there before the kubelet.
func (c *Cluster) startWorker(ctx context.Context, i int, ready <-chan struct{}, s *progress.Steps) error {
	name := plan.NodeName(i + 1)
	if err := s.Do(name+": container runtime and images", func() error {
		if err := c.Images.Plant(filepath.Join(c.nodeDisk(i), "var/lib/containerd")); err != nil {
			return err
		}
		if err := c.startRuntime(ctx, i); err != nil {
			return err
		}
		for _, archive := range c.Archives {
			if err := c.importImage(ctx, name, archive, ""); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return err
	}
	select {
	case <-ready:
	case <-ctx.Done():
		return ctx.Err()
	}
	if err := c.startKubelet(i); err != nil {
		return err
	}
	return c.startProxy(i)
}

// runtime is the container runtime of every node.
func (c *Cluster) runtime() node.Runtime {
	if c.Options.Runtime == RuntimeContainerd2 {
		return node.Containerd2(c.Containerd.Program(build.ContainerdDaemon), c.Containerd.Program(build.ContainerdClient), c.Containerd.Program(build.ContainerdShim))
	}
	return node.DebianContainerd(host.Program("containerd"), host.Program("ctr"))
}

func (c *Cluster) startRuntime(ctx context.Context, i int) error {
	name, runtime := plan.NodeName(i+1), c.runtime()
	config, err := runtime.Config(node.RuntimeSettings{PauseImage: images.Pause, AppArmor: host.AppArmor()})
	if err != nil {
		return err
	}
	file, err := place.Configuration(c.Options.Name, name, node.RuntimeConfig, config)
	if err != nil {
		return err
	}
	daemon := "containerd-" + name
	if err := c.daemon(name, name, daemon, runtime.Program, "--config="+file, "--log-level=warn"); err != nil {
		return err
	}
	socket, err := c.Path(name, node.RuntimeSocket)
	if err != nil {
		return err
	}
	return api.Poll(ctx, 3*time.Minute, daemon, func(ctx context.Context) error { return node.AskRuntime(ctx, socket) })
}

// importImage passes the archive by standard input: its path may mean something
// else on the node.
func (c *Cluster) importImage(ctx context.Context, name, archive, as string) error {
	f, err := os.Open(archive)
	if err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	defer f.Close()
	args := []string{c.runtime().Client, "--namespace=k8s.io", "images", "import"}
	if as != "" {
		args = append(args, "--index-name="+as)
	}
	cmd, err := c.Command(ctx, name, append(args, "-")...)
	if err != nil {
		return fmt.Errorf("import image %s: %w", archive, err)
	}
	cmd.Stdin = f
	if _, err := output(cmd, "ctr images import "+archive+" on "+name); err != nil {
		return fmt.Errorf("import image: %w", err)
	}
	return nil
}

func (c *Cluster) startKubelet(i int) error {
	name := plan.NodeName(i + 1)
	config, err := node.KubeletConfig(node.KubeletSettings{
		CACert: c.pki(pki.CACert), CgroupRoot: "/" + c.cgroup(name), DNS: c.plan.DNS()[0].String(), Address: c.plan.Anywhere()})
	if err != nil {
		return err
	}
	file, err := place.Configuration(c.Options.Name, name, "kubelet.yaml", config)
	if err != nil {
		return err
	}
	return c.daemon(name, name, "kubelet-"+name, c.Kubernetes.Program(build.Kubelet), "--v=2", "--config="+file,
		"--kubeconfig="+c.pki(pki.KubeletKubeconfig(name)), "--hostname-override="+name,
		"--node-ip="+plan.Joined(c.plan.NodeAddresses(i)), "--root-dir=/var/lib/kubelet")
}

// StopNode switches a node off: all of its processes and its network namespace
// end at once, its disk stays.
func (c *Cluster) StopNode(ctx context.Context, name string) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	if i == 0 {
		return fmt.Errorf("stop %s: it carries the control plane; stop another node, or the cluster with: cluster down --name %s", name, c.Options.Name)
	}
	if err := c.layout.Kill(ctx, c.cgroup(name)); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	c.mu.Lock()
	if leaf, ok := c.leaf[name]; ok {
		leaf.Close()
		delete(c.leaf, name)
	}
	c.mu.Unlock()
	if err := c.layout.Remove(c.cgroup(name)); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	far := c.plan.LAN.Namespace
	if i+1 == c.Options.Routed {
		far = c.plan.Router.Namespace
	}
	if err := underlay.Unplug(far, name); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	if err := underlay.Remove(plan.Namespace(c.Options.Name, name)); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	return process.Forget(c.processes(), "-"+name)
}

// StartNode switches a node on again.
func (c *Cluster) StartNode(ctx context.Context, name string) error {
	i, err := c.index(name)
	if err != nil {
		return err
	}
	if _, err := c.anchor(name); err == nil {
		return fmt.Errorf("start %s: it is running", name)
	}
	if err := c.connect(i); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := c.boot(i); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := c.startRuntime(ctx, i); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	if err := c.startKubelet(i); err != nil {
		return err
	}
	return c.startProxy(i)
}

// LoadImage imports an archive on every node that runs, under the names it holds
// and, unless it is "", under another. The nodes do it at the same time.
func (c *Cluster) LoadImage(ctx context.Context, archive, name string) error {
	g, together := errgroup.WithContext(ctx)
	for _, node := range c.Nodes() {
		if _, err := c.anchor(node); err != nil {
			continue
		}
		g.Go(func() error { return c.importImage(together, node, archive, name) })
	}
	return g.Wait()
}
