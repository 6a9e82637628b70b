// Package overlay keeps this node part of the pod network: it joins the
// cluster's view with the kernel. Inputs are a Source (this node and every
// NodeNetwork) and the kernel's events; outputs are the VXLAN device, the
// peers' neighbours, forwarding entries and routes, masquerade, this node's
// own NodeNetwork through a Publisher, and a State after every pass. It
// refuses to change the kernel before the first complete view of the cluster,
// and never takes anything down because the API server is away.
package overlay

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/program"
)

// Source is where the module reads the cluster from.
type Source interface {
	// Self is false until this node was read; its PodCIDRs may still be empty.
	Self() (self cluster.Self, ok bool)
	// Nodes is every node's NodeNetwork, this node's included; false before
	// the first complete list.
	Nodes() (nodes []cluster.Node, ok bool)
	// Subscribe has changed called after every change. Both sides never
	// block. It is called before Run waits for anything.
	Subscribe(changed func())
}

// Publisher writes this node's own NodeNetwork: idempotent, and written only
// where it differs.
type Publisher interface {
	Publish(ctx context.Context, n cluster.Node) error
}

// Table is the nftables table that all modules share.
type Table interface {
	// Set makes one module's part of the table as want says.
	Set(ctx context.Context, want program.Table) (diff.Result, error)
	// Forget has the next Set read the kernel again.
	Forget()
	// Watch calls changed when somebody else has changed the table.
	Watch(ctx context.Context, changed func()) error
}

// Config is what an administrator may choose.
type Config struct {
	// VNI and Port identify the overlay on the wire; every node has the same.
	VNI  uint32
	Port uint16
	// MTU of the pods' links; 0 derives it from the underlay device.
	MTU int
	// Interface names the underlay device; "" is the one that holds the
	// Node's InternalIP.
	Interface string
	// NoTunnel reaches other nodes directly or not at all; it implies
	// DirectRouting.
	NoTunnel bool
	// DirectRouting sends packets to nodes of the same network as they are,
	// without encapsulation, where those want it too.
	DirectRouting bool
	// Checksums of encapsulated packets: "auto", "on" (the network card's
	// work) or "off" (the CPU's).
	Checksums string
	// Masquerade gives packets that leave the cluster the node's address.
	Masquerade bool
	// ExcludeCIDRs are destinations outside the cluster that see the pods'
	// own addresses.
	ExcludeCIDRs []netip.Prefix
	// OpenFirewalls has other programs' firewalls let pods' packets pass where
	// their policy is to drop what is forwarded.
	OpenFirewalls bool
	// ClusterCIDRs, if any, bound what a node may claim.
	ClusterCIDRs []netip.Prefix
	// SysctlRoot is where /proc/sys/net is found.
	SysctlRoot string
	// Resync is how often the kernel is read again without an event.
	Resync time.Duration
}

// Deps is all the module uses.
type Deps struct {
	Config    Config
	Source    Source
	Publisher Publisher
	Table     Table
	Log       *slog.Logger
	// Note is told of each change of a setting that is not our devices',
	// before it is made; it may be nil.
	Note func(sysctl.Change)
	// Report gets what is true after every pass; it must not block.
	Report func(State)
}

// Refusal is a node that is not programmed, and why.
type Refusal struct {
	Node, Reason string
}

// State is what is true after a pass.
type State struct {
	Self     cluster.Self
	Underlay cluster.Underlay
	// MTU of the overlay device, thus of the pods' links.
	MTU int
	// Checksums says who fills in those of encapsulated packets.
	Checksums Checksums
	// Peers counts the nodes that are programmed, Others are these, and Ends
	// are addresses of the two ends of the way to one, inside the pod network.
	Peers   int
	Others  []cluster.Node
	Ends    func(cluster.Node) (own, its netip.Addr, ok bool)
	Refused []Refusal
	// Contested says that the other nodes refuse this one, for what Unfit says.
	Contested bool
	// Strays are the addresses of pods from ranges that this node had before.
	Strays []netip.Addr
	// LargePods counts pods whose links have a larger MTU than MTU.
	LargePods int
	// Blocking are other programs' chains that drop what is forwarded.
	Blocking []string
	Result   diff.Result
	// Repairs says that Result is what others had changed; empty where the
	// cluster may have changed.
	Repairs diff.Cause
	// Took is how long the pass lasted.
	Took time.Duration
	// Err is what the pass failed with, or what it waits for.
	Err error
	// Unfit says what the Node lacks that no pod can be without. Running pods
	// are left as they are, and no other may start.
	Unfit string
	// InPlace says that the device, this node's own NodeNetwork and every
	// known peer are as they should be: pods may start.
	InPlace bool
}

// Module is the overlay of one node; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
}

// New makes the module; Run starts it.
func New(deps Deps) *Module { return &Module{deps: deps, ready: loop.NewReady()} }

// Ready implements loop.Task: the overlay was in place once.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "overlay" }
