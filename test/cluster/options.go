// Package cluster runs a real Kubernetes on one machine: etcd, the control
// plane, and on each node a containerd and a kubelet, every node being a set of
// namespaces with its own address on a LAN. In: Options, and root. Out: a
// cluster that outlives its maker, found again by its name, and taken down
// without a trace, even if its maker died half way. It refuses a name that is
// taken and machines that lack what nodes need.
package cluster

import (
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"

	"poplin.dev/poplin/test/cluster/plan"
)

// Options say what Up makes. The zero value of each is its default.
type Options struct {
	Name    string // default "poplin"
	Nodes   int    // default 3
	Family  string // "ipv4", "ipv6" or, by default, "dual"
	Network string // "poplin" (default) or "none"
	// Proxy is who serves Services: "poplin" (default with its network),
	// "kube-proxy" (default without) or "none".
	Proxy   string
	Runtime string // RuntimeDebian (default) or RuntimeContainerd2
	Version string // of Kubernetes; default: the project's
	Routed  int    // number of the worker behind a router; 0: none
	// Image and Manifest are Poplin's, for Network "poplin"; by default those of
	// the project: dist/poplin-image.tar and install/manifests/poplin.yaml.
	Image    string
	Manifest string
	// Keep leaves what there is when Up fails.
	Keep bool
	// Output receives a line for each step.
	Output io.Writer `json:"-"`
}

// Container runtimes.
const (
	RuntimeDebian      = "debian"       // containerd of Debian 12, which speaks CNI 1.0
	RuntimeContainerd2 = "containerd-2" // of test/cluster/containerd, which speaks CNI 1.1
)

// DefaultName is the name of a cluster that was given none.
const DefaultName = "poplin"

const maxNodes = 100

var nameForm = regexp.MustCompile(`^[a-z]([-a-z0-9]{0,30}[a-z0-9])?$`)

func checkName(name string) error {
	if !nameForm.MatchString(name) {
		return fmt.Errorf("check name %q: want at most 32 small letters, digits and hyphens, beginning with a letter", name)
	}
	return nil
}

// complete fills in defaults and refuses what cannot be.
func (o Options) complete() (Options, error) {
	for _, d := range []struct {
		value   *string
		key     string
		allowed []string // the first is the default
	}{
		{&o.Family, "family", []string{"dual", "ipv4", "ipv6"}},
		{&o.Network, "network", []string{"poplin", "none"}},
		{&o.Runtime, "runtime", []string{RuntimeDebian, RuntimeContainerd2}},
	} {
		if *d.value == "" {
			*d.value = d.allowed[0]
		}
		if !slices.Contains(d.allowed, *d.value) {
			return o, fmt.Errorf("check %s %q: want one of %s", d.key, *d.value, strings.Join(d.allowed, ", "))
		}
	}
	proxies := []string{"poplin", "kube-proxy", "none"}
	if o.Network == "none" {
		proxies = proxies[1:] // Poplin's comes with its network
	}
	if o.Proxy == "" {
		o.Proxy = proxies[0]
	}
	if !slices.Contains(proxies, o.Proxy) {
		return o, fmt.Errorf("check proxy %q: want one of %s with network %s", o.Proxy, strings.Join(proxies, ", "), o.Network)
	}
	if o.Name == "" {
		o.Name = DefaultName
	}
	if o.Nodes == 0 {
		o.Nodes = 3
	}
	if o.Nodes < 1 || o.Nodes > maxNodes {
		return o, fmt.Errorf("check nodes %d: want 1 to %d", o.Nodes, maxNodes)
	}
	if o.Routed < 0 || o.Routed > o.Nodes {
		return o, fmt.Errorf("check routed %d: want the number of a worker, 1 to %d", o.Routed, o.Nodes)
	}
	if o.Output == nil {
		o.Output = io.Discard
	}
	return o, checkName(o.Name)
}

func (o Options) plan() plan.Plan { return plan.New(o.Name, o.Nodes, o.Family, o.Routed) }
