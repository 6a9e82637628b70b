// Package cni drives CNI plugins as a container runtime does, through libcni
// with its cache of results. A Node is a network namespace of its own and a
// few directories; its pods are network namespaces that no name or mount
// refers to, so that nothing outlives the process. It is for tests and the
// benchmark, and refuses to touch the machine's own network.
package cni

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"poplin.dev/poplin/test/thread"
)

// Node is a machine as far as a CNI plugin can see.
type Node struct {
	// Dir holds the node's files; Bin is where its plugins are.
	Dir  string
	Bin  string
	Link *netlink.Handle
	// CNI is the runtime's side; it works inside Do.
	CNI *libcni.CNIConfig
	ns  netns.NsHandle
}

// NewNode makes a node with an empty network. path are the directories that
// hold its plugins.
func NewNode(dir string, path ...string) (*Node, error) {
	n := &Node{Dir: dir, Bin: path[0]}
	var err error
	if n.ns, n.Link, err = newNamespace(); err != nil {
		return nil, fmt.Errorf("make node: %w", err)
	}
	n.CNI = libcni.NewCNIConfigWithCacheDir(path, filepath.Join(dir, "cache"), nil)
	return n, nil
}

// Close ends the node and the links of its pods with it.
func (n *Node) Close() {
	n.Link.Close()
	n.ns.Close()
}

// Do runs work on a thread in the node's network namespace; what it executes
// runs there as well.
func (n *Node) Do(work func()) error { return in(n.ns, work) }

// Path is a name of the node's network namespace for other processes.
func (n *Node) Path() string { return path(n.ns) }

// Pod is a sandbox.
type Pod struct {
	ID   string
	If   string
	Link *netlink.Handle
	// Args and Capabilities are given to each call, as libcni has them.
	Args         [][2]string
	Capabilities map[string]any
	ns           netns.NsHandle
}

// NewPod makes a sandbox with its loopback device up.
func NewPod(id string) (*Pod, error) {
	ns, link, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make pod %s: %w", id, err)
	}
	return &Pod{ID: id, If: "eth0", Link: link, ns: ns}, nil
}

// Path is a name of the pod's network namespace for other processes.
func (p *Pod) Path() string { return path(p.ns) }

func path(ns netns.NsHandle) string { return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(ns)) }

// Do runs work on a thread in the pod's network namespace.
func (p *Pod) Do(work func()) error { return in(p.ns, work) }

// Close ends the sandbox.
func (p *Pod) Close() {
	p.Link.Close()
	p.ns.Close()
}

// RuntimeConf is how a runtime describes the pod.
func (p *Pod) RuntimeConf() *libcni.RuntimeConf {
	return &libcni.RuntimeConf{
		ContainerID: p.ID, NetNS: p.Path(), IfName: p.If, Args: p.Args, CapabilityArgs: p.Capabilities,
	}
}

// Build compiles programs of this module into dir as a release has them.
func Build(dir string, packages ...string) error {
	for _, p := range packages {
		cmd := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir+"/", "poplin.dev/poplin/"+p)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", p, err, out)
		}
	}
	return nil
}

// List is a network configuration list of one plugin with that JSON, or the
// list itself if it has plugins.
func List(conf string) (*libcni.NetworkConfigList, error) {
	var object map[string]json.RawMessage
	if err := json.Unmarshal([]byte(conf), &object); err != nil {
		return nil, err
	}
	if object["plugins"] == nil {
		list := map[string]any{"cniVersion": object["cniVersion"], "name": object["name"], "plugins": []any{json.RawMessage(conf)}}
		b, err := json.Marshal(list)
		if err != nil {
			return nil, err
		}
		conf = string(b)
	}
	return libcni.NetworkConfFromBytes([]byte(conf))
}

// Add is ADD with what the runtime does around it.
func (n *Node) Add(list *libcni.NetworkConfigList, p *Pod) (*types100.Result, error) {
	var result *types100.Result
	err := n.call(func(ctx context.Context) error {
		r, err := n.CNI.AddNetworkList(ctx, list, p.RuntimeConf())
		if err == nil {
			result, err = types100.NewResultFromResult(r)
		}
		return err
	})
	return result, err
}

// Check is CHECK.
func (n *Node) Check(list *libcni.NetworkConfigList, p *Pod) error {
	return n.call(func(ctx context.Context) error { return n.CNI.CheckNetworkList(ctx, list, p.RuntimeConf()) })
}

// Del is DEL.
func (n *Node) Del(list *libcni.NetworkConfigList, p *Pod) error {
	return n.call(func(ctx context.Context) error { return n.CNI.DelNetworkList(ctx, list, p.RuntimeConf()) })
}

// Status is STATUS.
func (n *Node) Status(list *libcni.NetworkConfigList) error {
	return n.call(func(ctx context.Context) error { return n.CNI.GetStatusNetworkList(ctx, list) })
}

// GC is GC with pods that the runtime knows. What else is in its cache it
// deletes first.
func (n *Node) GC(list *libcni.NetworkConfigList, valid ...*Pod) error {
	args := &libcni.GCArgs{}
	for _, p := range valid {
		args.ValidAttachments = append(args.ValidAttachments, types.GCAttachment{ContainerID: p.ID, IfName: p.If})
	}
	return n.call(func(ctx context.Context) error { return n.CNI.GCNetworkList(ctx, list, args) })
}

// Forget takes a pod out of the runtime's cache of a network.
func (n *Node) Forget(network string, p *Pod) error {
	return os.Remove(filepath.Join(n.Dir, "cache", "results", network+"-"+p.ID+"-"+p.If))
}

func (n *Node) call(f func(context.Context) error) error {
	var err error
	return errors.Join(n.Do(func() { err = f(context.Background()) }), err)
}

// Exec runs a plugin without libcni, for calls that libcni would refuse to
// make. It returns what the plugin wrote to stdout.
func (n *Node) Exec(plugin, stdin string, env ...string) ([]byte, error) {
	var out bytes.Buffer
	err := n.ExecTo(&out, plugin, stdin, env...)
	return out.Bytes(), err
}

// ExecTo is Exec with a stdout of the caller's.
func (n *Node) ExecTo(stdout io.Writer, plugin, stdin string, env ...string) error {
	cmd := n.command(plugin, stdin, env)
	cmd.Stdout = stdout
	var err error
	return errors.Join(n.Do(func() { err = cmd.Run() }), err)
}

// ExecKilled is Exec that ends with SIGKILL after a while, if it is not done
// by then.
func (n *Node) ExecKilled(after time.Duration, plugin, stdin string, env ...string) (killed bool, err error) {
	cmd := n.command(plugin, stdin, env)
	var start error
	if err := errors.Join(n.Do(func() { start = cmd.Start() }), start); err != nil {
		return false, err
	}
	time.Sleep(after)
	_ = cmd.Process.Kill()
	return cmd.Wait() != nil, nil
}

func (n *Node) command(plugin, stdin string, env []string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(n.Bin, plugin))
	cmd.Env = append([]string{"CNI_PATH=" + n.Bin, "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}, env...)
	cmd.Stdin, cmd.Stderr = bytes.NewReader([]byte(stdin)), os.Stderr
	return cmd
}

// in runs work on a thread that is in ns and ends with it.
func in(ns netns.NsHandle, work func()) error {
	return thread.Discard(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		work()
		return nil
	})
}

// newNamespace makes a network namespace with its loopback device up.
func newNamespace() (ns netns.NsHandle, link *netlink.Handle, err error) {
	err = thread.Discard(func() error {
		ns, err = netns.New()
		return err
	})
	if err != nil {
		return ns, nil, err
	}
	if link, err = netlink.NewHandleAt(ns); err != nil {
		ns.Close()
		return ns, nil, err
	}
	lo, err := link.LinkByName("lo")
	if err == nil {
		err = link.LinkSetUp(lo)
	}
	if err != nil {
		link.Close()
		ns.Close()
	}
	return ns, link, err
}
