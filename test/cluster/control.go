package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/process"
)

// controlPlane names the cgroup of the control plane's processes. They run in
// worker-1's namespaces, as they do on a kubeadm node: the API server reaches
// pods and webhooks through the network under test.
const controlPlane = "control-plane"

const (
	apiPort  = 6443
	etcdURL  = "http://127.0.0.1:2379"
	etcdPeer = "http://127.0.0.1:2380"
)

// daemon starts a process in the namespaces of a node and the cgroup of owner.
func (c *Cluster) daemon(owner, node, name string, args ...string) error {
	pid, err := c.anchor(node)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	leaf, err := c.leafOf(owner)
	if err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	record, err := process.Start(process.Spec{
		Name: name, Args: append(enter(pid), args...), Env: append([]string{"HOME=/root"}, environment...),
		Log: c.log(name), Cgroup: leaf,
	})
	if err != nil {
		return err
	}
	return record.Save(c.processes())
}

// startControlPlane closes ready when the API server answers, and returns when
// the control plane is complete.
func (c *Cluster) startControlPlane(ctx context.Context, network *network, ready chan<- struct{}, s *steps) error {
	first := nodeName(1)
	start := func(name string, args ...string) error {
		return c.daemon(controlPlane, first, name, append([]string{c.Kubernetes.Program(name)}, args...)...)
	}
	if err := s.do("API server", func() error {
		if err := start(build.Etcd, c.etcdArgs()...); err != nil {
			return err
		}
		if err := start(build.APIServer, c.apiServerArgs()...); err != nil {
			return err
		}
		return c.waitAPI(ctx)
	}); err != nil {
		return err
	}
	close(ready)
	if err := start(build.ControllerManager, c.controllerArgs()...); err != nil {
		return err
	}
	if err := start(build.Scheduler, c.schedulerArgs()...); err != nil {
		return err
	}
	return s.do("manifests applied", func() error { return c.applyAddons(ctx, network) })
}

func (c *Cluster) etcdArgs() []string {
	return []string{
		"--data-dir=" + filepath.Join(c.disk(), "etcd"),
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL, "--listen-peer-urls=" + etcdPeer,
		"--unsafe-no-fsync", "--log-level=warn", // the cluster goes with the machine's boot anyway
	}
}

func (c *Cluster) apiServerArgs() []string {
	bind := "0.0.0.0"
	if c.plan.ipv6 {
		bind = "::"
	}
	return []string{
		"--v=2", "--etcd-servers=" + etcdURL, "--bind-address=" + bind, fmt.Sprintf("--secure-port=%d", apiPort),
		"--advertise-address=" + c.plan.nodeAddresses(0)[0].String(),
		"--service-cluster-ip-range=" + joined(c.plan.services),
		"--allow-privileged=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + c.pki(pki.CACert),
		"--tls-cert-file=" + c.pki(pki.Certificate("apiserver")), "--tls-private-key-file=" + c.pki(pki.Key("apiserver")),
		"--kubelet-client-certificate=" + c.pki(pki.Certificate("apiserver-kubelet-client")),
		"--kubelet-client-key=" + c.pki(pki.Key("apiserver-kubelet-client")),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--service-account-key-file=" + c.pki(pki.ServiceAccountPublic),
		"--service-account-signing-key-file=" + c.pki(pki.ServiceAccountKey),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--requestheader-client-ca-file=" + c.pki(pki.FrontProxyCACert),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + c.pki(pki.Certificate("front-proxy-client")),
		"--proxy-client-key-file=" + c.pki(pki.Key("front-proxy-client")),
		"--enable-aggregator-routing=true", "--profiling=false",
	}
}

// client are the arguments of a component that is a client of the API server
// and asks it whom to serve.
func (c *Cluster) client(kubeconfig string) []string {
	path := c.pki(kubeconfig)
	return []string{"--v=2", "--kubeconfig=" + path, "--authentication-kubeconfig=" + path, "--authorization-kubeconfig=" + path,
		"--leader-elect=false", "--kube-api-qps=100", "--kube-api-burst=200"}
}

func (c *Cluster) controllerArgs() []string {
	return append(c.client(pki.ControllerKubeconfig),
		"--use-service-account-credentials=true",
		"--allocate-node-cidrs=true", "--cluster-cidr="+joined(c.plan.pods), "--service-cluster-ip-range="+joined(c.plan.services),
		"--service-account-private-key-file="+c.pki(pki.ServiceAccountKey), "--root-ca-file="+c.pki(pki.CACert),
		"--cluster-signing-cert-file="+c.pki(pki.CACert), "--cluster-signing-key-file="+c.pki(pki.CAKey),
		"--client-ca-file="+c.pki(pki.CACert), "--requestheader-client-ca-file="+c.pki(pki.FrontProxyCACert))
}

func (c *Cluster) schedulerArgs() []string { return c.client(pki.SchedulerKubeconfig) }

// poll asks until the answer is yes. An error is not the end, it is the reason
// when time is up.
func poll(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := errors.New("not asked yet")
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", what, context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// dead names a daemon whose process has ended: no use to wait for it.
func (c *Cluster) dead(name string) error {
	record, err := process.Load(c.processes(), name)
	if err != nil || record.Alive() {
		return err
	}
	log, _ := os.ReadFile(record.Log)
	return fmt.Errorf("%s has ended; the end of %s: %s", name, record.Log, lastLines(log, 3))
}
