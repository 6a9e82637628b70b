package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/cgroup"
	"poplin.dev/poplin/test/cluster/images"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/process"
	"poplin.dev/poplin/test/cluster/underlay"
)

// Cluster is one that exists.
type Cluster struct {
	state
	plan   plan.Plan
	layout cgroup.Layout

	mu   sync.Mutex
	leaf map[string]*os.File // cgroups that commands are born into, by node
}

// state is what is written down about a cluster, enough to start its nodes
// again.
type state struct {
	Options    Options
	Kubernetes build.Kubernetes
	Containerd build.Containerd // where it is the nodes' runtime
	Images     images.Set
	Archives   []string // of images that are not of the set
	CoreDNS    string   // name of the image
}

func newCluster(s state) (*Cluster, error) {
	layout, err := cgroup.Detect()
	if err != nil {
		return nil, err
	}
	return &Cluster{state: s, plan: s.Options.plan(), layout: layout, leaf: map[string]*os.File{}}, nil
}

// Open finds a cluster that runs.
func Open(name string) (*Cluster, error) {
	if err := checkName(name); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(place.Disk(name), "cluster.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open cluster %s: there is none; make it with: cluster up --name %s", name, name)
	}
	if err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", name, err)
	}
	var s state
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", name, err)
	}
	c, err := newCluster(s)
	if err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", name, err)
	}
	if _, err := c.anchor(plan.NodeName(1)); err != nil {
		return nil, fmt.Errorf("open cluster %s: it does not run (%w); take down what is left of it with: cluster down --name %s", name, err, name)
	}
	return c, nil
}

func (c *Cluster) save() error {
	b, err := json.MarshalIndent(c.state, "", "  ")
	if err != nil {
		return fmt.Errorf("save cluster: %w", err)
	}
	// Not whole after a crash, it names no cluster that runs; down needs it not.
	if err := os.WriteFile(filepath.Join(c.disk(), "cluster.json"), b, 0o644); err != nil {
		return fmt.Errorf("save cluster: %w", err)
	}
	return nil
}

func (c *Cluster) run() string       { return place.Run(c.Options.Name) }
func (c *Cluster) disk() string      { return place.Disk(c.Options.Name) }
func (c *Cluster) processes() string { return filepath.Join(c.run(), "processes") }

// Logs is the directory of the logs: COMPONENT.log or COMPONENT-NODE.log.
func (c *Cluster) Logs() string { return filepath.Join(c.disk(), "logs") }

func (c *Cluster) log(component string) string { return filepath.Join(c.Logs(), component+".log") }

func (c *Cluster) pki(file string) string { return filepath.Join(c.disk(), "pki", file) }

func (c *Cluster) cgroup(below ...string) string {
	return filepath.Join(append([]string{plan.Cgroup(c.Options.Name)}, below...)...)
}

// Name is the cluster's.
func (c *Cluster) Name() string { return c.Options.Name }

// Nodes lists the names of the nodes, running or not.
func (c *Cluster) Nodes() []string {
	var names []string
	for _, host := range c.plan.Hosts {
		names = append(names, host.Port)
	}
	return names
}

// UnderlayNamespace is the file of the LAN's network namespace: each node's
// port there has the node's name, and the bridge is "lan".
func (c *Cluster) UnderlayNamespace() string { return underlay.Path(c.plan.LAN.Namespace) }

// Namespace is the file of a node's network namespace.
func (c *Cluster) Namespace(node string) string {
	return underlay.Path(plan.Namespace(c.Options.Name, node))
}

// Path is where a file of a node that runs is found from outside of it.
func (c *Cluster) Path(node, path string) (string, error) {
	pid, err := c.anchor(node)
	return fmt.Sprintf("/proc/%d/root%s", pid, path), err
}

// Kubeconfig is the file of the administrator's kubeconfig. Its server is
// reached from within the cluster, or through DialContext.
func (c *Cluster) Kubeconfig() string { return c.pki(pki.AdminKubeconfig) }

// KubeletKubeconfig is the file of a kubelet's kubeconfig.
func (c *Cluster) KubeletKubeconfig(node string) string { return c.pki(pki.KubeletKubeconfig(node)) }

// Server is the URL of the API server.
func (c *Cluster) Server() string { return c.plan.Server() }

// index returns the place of a node in the plan.
func (c *Cluster) index(node string) (int, error) {
	for i, host := range c.plan.Hosts {
		if host.Port == node {
			return i, nil
		}
	}
	return 0, fmt.Errorf("find node %q: cluster %s has %s", node, c.Options.Name, strings.Join(c.Nodes(), ", "))
}

// anchor returns the process id of a node's anchor, which lives as long as the
// node does.
func (c *Cluster) anchor(node string) (int, error) {
	record, err := process.Load(c.processes(), anchorName(node))
	if err != nil || !record.Alive() {
		return 0, fmt.Errorf("node %s is not running", node)
	}
	return record.PID, nil
}

func anchorName(node string) string { return "anchor-" + node }

// Command returns a command that runs in a node's namespaces. It is the
// caller's to start; it ends with the node at the latest.
func (c *Cluster) Command(ctx context.Context, node string, command ...string) (*exec.Cmd, error) {
	if _, err := c.index(node); err != nil {
		return nil, err
	}
	pid, err := c.anchor(node)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", command[0], err)
	}
	return c.bornIn(ctx, node, append(enter(pid), command...))
}

// enter is the beginning of a command line that runs in an anchor's namespaces.
func enter(anchor int) []string {
	return []string{"nsenter", fmt.Sprintf("--target=%d", anchor), "--net", "--mount", "--uts", "--"}
}

// bornIn makes a command whose process is in the cgroup of a node, or of the
// control plane, from its first moment.
func (c *Cluster) bornIn(ctx context.Context, node string, args []string) (*exec.Cmd, error) {
	leaf, err := c.leafOf(node)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), environment...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(leaf.Fd())}
	return cmd, nil
}

// environment of everything in a cluster: administrators' programs are found,
// and no proxy of the machine's stands between a cluster and itself.
var environment = []string{
	"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
	"HTTP_PROXY=", "HTTPS_PROXY=", "ALL_PROXY=", "http_proxy=", "https_proxy=", "all_proxy=",
}

func (c *Cluster) leafOf(node string) (*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f, ok := c.leaf[node]; ok {
		return f, nil
	}
	f, err := c.layout.Leaf(c.cgroup(node, "daemons"))
	if err == nil {
		c.leaf[node] = f
	}
	return f, err
}

// Exec runs a command on a node and returns what it wrote to standard output.
func (c *Cluster) Exec(ctx context.Context, node string, command ...string) ([]byte, error) {
	cmd, err := c.Command(ctx, node, command...)
	if err != nil {
		return nil, err
	}
	return output(cmd, strings.Join(command, " ")+" on "+node)
}

// KubectlCommand returns a kubectl that talks to the cluster. Files that its
// arguments name are this machine's.
func (c *Cluster) KubectlCommand(ctx context.Context, args ...string) (*exec.Cmd, error) {
	line := []string{"nsenter", "--net=" + c.Namespace(plan.NodeName(1)), "--", c.Kubernetes.Program(build.Kubectl), "--kubeconfig=" + c.Kubeconfig()}
	cmd, err := c.bornIn(ctx, controlPlane, append(line, args...))
	if err != nil {
		return nil, err
	}
	cmd.Env = append(cmd.Env, "KUBECACHEDIR="+filepath.Join(c.run(), "kubectl"))
	return cmd, nil
}

// Kubectl runs kubectl and returns what it wrote to standard output.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) ([]byte, error) {
	cmd, err := c.KubectlCommand(ctx, args...)
	if err != nil {
		return nil, err
	}
	return output(cmd, "kubectl "+strings.Join(args, " "))
}

func output(cmd *exec.Cmd, what string) ([]byte, error) {
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return out, fmt.Errorf("run %s: %w: %s", what, err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}

// DialContext dials from within the control plane's network namespace; a
// rest.Config's Dial, for clients that run outside of the cluster.
func (c *Cluster) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return underlay.Dial(ctx, plan.Namespace(c.Options.Name, plan.NodeName(1)), network, address)
}

// Conformance returns the directory with the programs of the conformance suite:
// e2e.test, ginkgo and kubectl.
func (c *Cluster) Conformance() (dir string, err error) {
	dir = c.Kubernetes.Dir
	if _, err := os.Stat(filepath.Join(dir, "e2e.test")); err != nil {
		return "", fmt.Errorf("find conformance suite: it is not built; run: cluster tools --conformance")
	}
	return dir, nil
}
