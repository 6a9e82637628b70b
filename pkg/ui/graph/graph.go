// Package graph is a cluster's network as a picture needs it: nodes, pods,
// Services, Ingresses and policies, and what leads to what. Inputs are objects
// as the API server has them; output is a value that becomes JSON, in a stable
// order. It refuses to judge what a trace does: a problem here is what the
// objects themselves say.
package graph

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/policy"
)

// Input is what there is.
type Input struct {
	Nodes     []object.Node
	Networks  []cluster.Node
	Pods      []object.Pod
	Services  []object.Service
	Slices    []object.Slice
	Ingresses []object.Ingress
	// Policies have the labels of pods and namespaces too.
	Policies policy.Objects
	// Missing says what could not be read, and why.
	Missing []string
	Now     time.Time
}

// Graph is the picture.
type Graph struct {
	Taken     time.Time `json:"taken"`
	Nodes     []Node    `json:"nodes"`
	Pods      []Pod     `json:"pods"`
	Services  []Service `json:"services"`
	Ingresses []Ingress `json:"ingresses"`
	Policies  []Policy  `json:"policies"`
	// Edges lead from Ingresses to Services, and from there to pods.
	Edges   []Edge   `json:"edges"`
	Missing []string `json:"missing"`
}

// Thing is what all have. ID is node/NAME, or pod, service, ingress or policy
// with /NAMESPACE/NAME, as in the sections of a trace.
type Thing struct {
	ID        string `json:"id"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	// Problems are in words; none is good.
	Problems []string `json:"problems,omitempty"`
}

func (t *Thing) problem(format string, args ...any) {
	t.Problems = append(t.Problems, fmt.Sprintf(format, args...))
}

// Node is one of the cluster's.
type Node struct {
	Thing
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	// MTU is that of its pods; 0 where it has published none.
	MTU int `json:"mtu,omitempty"`
}

// Pod is one that has not ended.
type Pod struct {
	Thing
	// Node is the name of the one that runs it; empty before one does.
	Node        string       `json:"node"`
	Addresses   []netip.Addr `json:"addresses,omitempty"`
	HostNetwork bool         `json:"hostNetwork,omitempty"`
	// Ports are those that its containers declare.
	Ports []string `json:"ports,omitempty"`
	// Policies are the IDs of those that are about it.
	Policies []string `json:"policies,omitempty"`
}

// Service is one.
type Service struct {
	Thing
	Type      string       `json:"type"`
	Addresses []netip.Addr `json:"addresses,omitempty"`
	// Outer are its addresses for clients outside.
	Outer []netip.Addr `json:"outer,omitempty"`
	Ports []Port       `json:"ports"`
	// Ready of its Endpoints take new connections.
	Ready     int `json:"ready"`
	Endpoints int `json:"endpoints"`
}

// Port is one of a Service's.
type Port struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	Target   string `json:"target,omitempty"`
	NodePort uint16 `json:"nodePort,omitempty"`
}

// Ingress is one of any class.
type Ingress struct {
	Thing
	Class     string   `json:"class"`
	Addresses []string `json:"addresses,omitempty"`
	// URLs are such that a trace takes, one for each host and path.
	URLs []string `json:"urls"`
}

// Edge is from one thing to another.
type Edge struct {
	From string `json:"from"`
	To   string `json:"to"`
	// Label says for what: hosts and paths, or ports.
	Label string `json:"label,omitempty"`
	// Ready is false for an endpoint that takes no new connections.
	Ready bool `json:"ready"`
}

// Build makes the picture.
func Build(in Input) Graph {
	g := Graph{
		Taken: in.Now, Missing: append([]string{}, in.Missing...),
		Nodes: []Node{}, Pods: []Pod{}, Services: []Service{}, Ingresses: []Ingress{}, Policies: []Policy{}, Edges: []Edge{},
	}
	for _, p := range in.Pods {
		if !p.Ended() {
			g.Pods = append(g.Pods, pod(p))
		}
	}
	byID(g.Pods, func(p Pod) string { return p.ID })
	for _, n := range in.Nodes {
		g.Nodes = append(g.Nodes, node(n, in))
	}
	byID(g.Nodes, func(n Node) string { return n.ID })
	g.services(in)
	g.ingresses(in)
	g.policies(in.Policies)
	slices.SortFunc(g.Edges, func(a, b Edge) int {
		return strings.Compare(a.From+" "+a.To, b.From+" "+b.To)
	})
	return g
}

func byID[T any](list []T, id func(T) string) {
	slices.SortFunc(list, func(a, b T) int { return strings.Compare(id(a), id(b)) })
}

func thing(kind string, m object.Meta) Thing {
	t := Thing{ID: kind + "/" + m.Name, Namespace: m.Namespace, Name: m.Name}
	if m.Namespace != "" {
		t.ID = kind + "/" + m.String()
	}
	return t
}

func node(o object.Node, in Input) Node {
	n := Node{Thing: thing("node", o.Meta), Addresses: o.Addresses(), PodCIDRs: o.Spec.PodCIDRs}
	if !o.Ready() {
		n.problem("it is not Ready: %s", o.Why())
	}
	at := slices.IndexFunc(in.Networks, func(x cluster.Node) bool { return x.Name == o.Name })
	if at < 0 {
		n.problem("it has published no NodeNetwork: see the log of its poplind pod")
	} else {
		n.MTU = in.Networks[at].MTU
	}
	daemon := slices.IndexFunc(in.Pods, func(p object.Pod) bool {
		return p.Spec.NodeName == o.Name && p.Labels["app.kubernetes.io/name"] == "poplind" && !p.Ended()
	})
	switch {
	case daemon < 0:
		n.problem("no poplind pod runs there")
	case !in.Pods[daemon].Ready():
		n.problem("its poplind is not ready: %s", why(in.Pods[daemon]))
	}
	return n
}

func pod(o object.Pod) Pod {
	p := Pod{Thing: thing("pod", o.Meta), Node: o.Spec.NodeName, Addresses: o.Addresses(), HostNetwork: o.Spec.HostNetwork}
	for _, c := range o.Spec.Containers {
		for _, x := range c.Ports {
			p.Ports = append(p.Ports, fmt.Sprintf("%d/%s", x.Port, protocol(x.Protocol)))
		}
	}
	switch {
	case o.Deleted != nil:
		p.problem("it is being deleted")
	case o.Spec.NodeName == "":
		p.problem("no node has taken it")
	case !o.Ready():
		p.problem("it is not ready: %s", why(o))
	}
	return p
}

// why a pod is not ready.
func why(p object.Pod) string {
	for _, c := range p.Status.Containers {
		if w := c.State.Waiting; w != nil && w.Reason != "" {
			return "container " + c.Name + " waits: " + w.Reason
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Type == "Ready" && c.Message != "" {
			return c.Message
		}
	}
	return "nobody says why"
}

func protocol(name string) string {
	if name == "" {
		return "tcp" // the API's default
	}
	return strings.ToLower(name)
}
