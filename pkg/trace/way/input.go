package way

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/program/web"
)

// Input is everything there is to know.
type Input struct {
	// From is where the request begins, To where it should end.
	From End
	To   Target
	// Behind is the Service to which an Ingress leads; nil where no URL was
	// asked for, or none takes it.
	Behind *Target

	Objects Objects
	// Memory is nil where Objects are the API server's.
	Memory *Memory
	// Facts are by node; Absent has, for nodes without, the reason.
	Facts  map[string]facts.Node
	Absent map[string]string
	// Desired is what nodes should hold.
	Desired map[string]Desired
	// Web is what an Ingress controller should serve; nil where no URL was asked for.
	Web *Web
	Now time.Time
}

// Memory says that the API server is away, and whose knowledge Objects are.
type Memory struct {
	Node string `json:"node"`
	// Since is when that node's daemon last heard of the API server; zero where it
	// does now.
	Since time.Time `json:"since,omitzero"`
	// Why is what asking the API server came to.
	Why string `json:"why"`
}

// Say says all of that, with the age at a moment.
func (m *Memory) Say(now time.Time) string {
	age := "and its daemon has not lost the API server"
	if !m.Since.IsZero() {
		age = now.Sub(m.Since).Round(time.Second).String() + " ago"
	}
	return fmt.Sprintf("the API server is away (%s):\nthis is what node %s last knew of the cluster, %s", m.Why, m.Node, age)
}

// End is a pod, a node, or, with neither, a client outside.
type End struct {
	Pod   *object.Pod
	Node  string
	Addrs []netip.Addr
}

func (e End) String() string {
	switch {
	case e.Pod != nil:
		return "pod " + e.Pod.String()
	case e.Node != "":
		return "node " + e.Node
	case len(e.Addrs) > 0:
		return "client " + e.Addrs[0].String()
	}
	return "a client outside"
}

// Address picks the end's of the family of another; a client without one has
// an address that nobody has.
func (e End) Address(other netip.Addr) (netip.Addr, bool) {
	if e.Pod == nil && e.Node == "" && len(e.Addrs) == 0 {
		return netip.Addr{}, true
	}
	for _, a := range e.Addrs {
		if a.Is4() == other.Is4() {
			return a, true
		}
	}
	return netip.Addr{}, false
}

// Target is what was asked for.
type Target struct {
	// Name is it as the person wrote it.
	Name string
	// Service or Pod is what it names; both nil for an address of neither.
	Service *object.Service
	Pod     *object.Pod
	// Addrs are those that were named or that the name stands for.
	Addrs []netip.Addr
	Port  uint16
	Proto service.Protocol
	// Inner is the port of Pod to which a host port leads.
	Inner uint16
	// ByName says that the client has to find the address by DNS.
	ByName bool
	// Asked is the whole name that it asks for then.
	Asked string
	// Unresolved says why the name stands for nothing.
	Unresolved string
	// Forgotten says that it is a URL of an Ingress, which no node keeps.
	Forgotten bool
	// Missing says why there is no such target.
	Missing string
}

// Objects are those of the API that concern the question.
type Objects struct {
	Nodes    []object.Node
	Networks []cluster.Node
	// Pods are both ends, and those that a Service selects or leads to.
	Pods   []object.Pod
	Slices []object.Slice
	// DNS is the cluster's name server, with its slices; nil if it has none.
	DNS       *object.Service
	DNSSlices []object.Slice
}

// Node finds a node.
func (o Objects) Node(name string) (object.Node, bool) {
	i := slices.IndexFunc(o.Nodes, func(n object.Node) bool { return n.Name == name })
	if i < 0 {
		return object.Node{}, false
	}
	return o.Nodes[i], true
}

// Network finds a node's part in the pod network.
func (o Objects) Network(name string) (cluster.Node, bool) {
	i := slices.IndexFunc(o.Networks, func(n cluster.Node) bool { return n.Name == name })
	if i < 0 {
		return cluster.Node{}, false
	}
	return o.Networks[i], true
}

// PodAt finds who has an address.
func (o Objects) PodAt(a netip.Addr) *object.Pod {
	for i, p := range o.Pods {
		if !p.Spec.HostNetwork && !p.Ended() && slices.Contains(p.Addresses(), a) {
			return &o.Pods[i]
		}
	}
	return nil
}

// Desired is what a node should hold, by the daemon's compilers.
type Desired struct {
	// Net is the overlay; Refused are the nodes that are not part of it.
	// Lacks has, by part (net, services, policy), why that is not known.
	Lacks    map[string]string
	Net      program.Net
	Refused  map[string]string
	Services vip.Program
	Policy   permit.Program
	// Explain says which policies decide about a packet, at the sender's end
	// or at the receiver's; it may be nil.
	Explain func(sending bool, src netip.Addr, dst netip.AddrPort, proto service.Protocol) string
}

// Web is what an Ingress controller should serve.
type Web struct {
	Program *web.Program
	TLS     bool
	Host    string
	Path    string
	// Findings are what is wrong with Ingresses of the host.
	Findings []Finding
	// Notes are what else is to be said of them.
	Notes []string
	// Replicas are the controller's pods; Told is what they have programmed, by
	// namespace and name.
	Replicas []object.Pod
	Told     map[string]Told
}

// Told is how what a replica says differs from what it should serve, or why it
// is not known. Both are empty where it serves what it should.
type Told struct{ Differs, Unknown string }

// Differs reports whether a replica serves something else.
func (w *Web) Differs() bool {
	for _, t := range w.Told {
		if t.Differs != "" {
			return true
		}
	}
	return false
}

// Finding is something about an Ingress.
type Finding struct {
	Ingress string
	Class   Class
	Text    string
	Cure    string
}

// NodeOf is the node that has an address.
func (in *Input) NodeOf(a netip.Addr) string {
	for _, n := range in.Objects.Nodes {
		if slices.Contains(n.Addresses(), a) {
			return n.Name
		}
	}
	return ""
}

// InPodRange reports whether a node gives an address to its pods.
func (in *Input) InPodRange(a netip.Addr) bool {
	return slices.ContainsFunc(in.Objects.Nodes, func(n object.Node) bool {
		return slices.ContainsFunc(n.Spec.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// Inside of a pod, where somebody could look.
func (in *Input) Inside(p *object.Pod) *facts.Network {
	f, known := in.Facts[p.Spec.NodeName]
	if !known {
		return nil
	}
	if p.Spec.HostNetwork {
		return f.Network
	}
	for _, a := range p.Addresses() {
		if x, ok := PodOf(&f, a); ok {
			return x.Inside
		}
	}
	return nil
}

// PodOf is the node's pod with an address.
func PodOf(f *facts.Node, a netip.Addr) (facts.Pod, bool) {
	i := slices.IndexFunc(f.Pods, func(p facts.Pod) bool { return slices.Contains(p.Addresses, a) })
	if i < 0 {
		return facts.Pod{}, false
	}
	return f.Pods[i], true
}

// PeerOf is another node as this one's overlay has it.
func PeerOf(f *facts.Node, other string) (facts.Peer, bool) {
	i := slices.IndexFunc(f.Peers, func(p facts.Peer) bool { return p.Node == other })
	if i < 0 {
		return facts.Peer{}, false
	}
	return f.Peers[i], true
}

// Wanted is the route of a program that an address takes.
func Wanted(p program.Net, dst netip.Addr) (best program.Route, ok bool) {
	for _, r := range p.Routes {
		if r.Dst.Contains(dst) && (!ok || r.Dst.Bits() > best.Dst.Bits()) {
			best, ok = r, true
		}
	}
	return best, ok
}

// Restart is for what the daemon should have programmed.
func Restart(node string) string {
	return "kubectl -n poplin-system delete pod -l app.kubernetes.io/name=poplind --field-selector spec.nodeName=" + node
}

// Logs shows what the daemon of a node says.
func Logs(node string) string {
	return "kubectl -n poplin-system logs daemonset/poplind --all-pods --prefix | grep " + node
}
