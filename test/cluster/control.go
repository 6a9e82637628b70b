package cluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/control"
	"poplin.dev/poplin/test/cluster/manifest"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/process"
	"poplin.dev/poplin/test/cluster/progress"
)

// controlPlane names the cgroup of the control plane's processes. They run in
// worker-1's namespaces, as they do on a kubeadm node: the API server reaches
// pods and webhooks through the network under test.
const controlPlane = "control-plane"

// daemon starts a process in the namespaces of a node and the cgroup of owner.
func (c *Cluster) daemon(owner, node, name string, args ...string) error {
	pid, err := c.anchor(node)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	return c.start(owner, name, append(enter(pid), args...))
}

func (c *Cluster) start(owner, name string, args []string) error {
	leaf, err := c.leafOf(owner)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	record, err := process.Start(process.Spec{
		Name: name, Args: args, Env: append([]string{"HOME=/root"}, environment...),
		Log: c.log(name), Cgroup: leaf,
	})
	if err != nil {
		return err
	}
	return record.Save(c.processes())
}

// KillDaemon ends one of the processes that Status lists, such as
// kube-apiserver or kubelet-worker-2, with SIGKILL.
func (c *Cluster) KillDaemon(ctx context.Context, name string) error {
	record, err := process.Load(c.processes(), name)
	if err != nil {
		return err
	}
	return record.Kill(ctx)
}

// StartDaemon starts a process again that KillDaemon has ended.
func (c *Cluster) StartDaemon(name string) error {
	record, err := process.Load(c.processes(), name)
	if err != nil {
		return err
	}
	owner := controlPlane
	for _, node := range c.Nodes() {
		if strings.HasSuffix(name, "-"+node) {
			owner = node
		}
	}
	return c.start(owner, name, record.Args)
}

// startControlPlane closes ready when the API server answers, and returns when
// the control plane is complete.
func (c *Cluster) startControlPlane(ctx context.Context, poplin *manifest.Poplin, ready chan<- struct{}, s *progress.Steps) error {
	first := plan.NodeName(1)
	spec := control.Spec{
		Data: filepath.Join(c.disk(), "etcd"), Address: c.plan.NodeAddresses(0)[0].String(), Listen: c.plan.Anywhere(), Port: plan.APIPort,
		Pods: plan.Joined(c.plan.Pods), Services: plan.Joined(c.plan.Services), PKI: c.pki,
	}
	start := func(name string, args ...string) error {
		return c.daemon(controlPlane, first, name, append([]string{c.Kubernetes.Program(name)}, args...)...)
	}
	if err := s.Do("API server", func() error {
		if err := start(build.Etcd, spec.Etcd()...); err != nil {
			return err
		}
		if err := start(build.APIServer, spec.APIServer()...); err != nil {
			return err
		}
		return c.waitAPI(ctx)
	}); err != nil {
		return err
	}
	close(ready)
	if err := start(build.ControllerManager, spec.ControllerManager()...); err != nil {
		return err
	}
	if err := start(build.Scheduler, spec.Scheduler()...); err != nil {
		return err
	}
	return s.Do("manifests applied", func() error { return c.applyAddons(ctx, poplin) })
}

// dead names a daemon whose process has ended: no use to wait for it.
func (c *Cluster) dead(name string) error {
	record, err := process.Load(c.processes(), name)
	if err != nil || record.Alive() {
		return err
	}
	log, _ := os.ReadFile(record.Log)
	return fmt.Errorf("%s has ended; the end of %s: %s", name, record.Log, api.LastLines(log, 3))
}
