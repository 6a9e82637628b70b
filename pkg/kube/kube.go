// Package kube is the one place that talks to the API server. Inputs are the
// addresses and credentials of the API server and this node's name; outputs
// are cluster values, kept current by watches, and what a node writes: its own
// NodeNetwork, the NetworkUnavailable condition of its own Node, and Events. It refuses to pass on an object it does not understand: that
// one is skipped and reported by name. It never gives up on the API server.
package kube

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/kube/access"
	"poplin.dev/poplin/pkg/kube/event"
	"poplin.dev/poplin/pkg/kube/follow"
	"poplin.dev/poplin/pkg/kube/group"
	"poplin.dev/poplin/pkg/kube/policies"
	"poplin.dev/poplin/pkg/kube/reach"
	"poplin.dev/poplin/pkg/kube/services"
)

// Config says which API server, as whom and for which node.
type Config struct {
	// NodeName is this node's name. Only cluster-wide readers leave it empty.
	NodeName string
	// Kubeconfig, for development and for people's programs, replaces
	// Endpoints, Saved and Credentials.
	Kubeconfig string
	// Endpoints are https URLs of the API server, in order of preference.
	Endpoints []string
	// Saved are the endpoints (host:port) that an earlier process passed to Save.
	Saved []string
	// Save keeps the endpoints (host:port) of the Service default/kubernetes
	// whenever they change. May be nil.
	Save func(endpoints []string) error
	// Credentials is the directory of the projected service account token
	// and its CA; empty is where Kubernetes mounts it.
	Credentials string
	Log         *slog.Logger
	// Observer may be nil.
	Observer Observer
}

// Observer is told of every attempt to reach the API server.
type Observer interface {
	// Dialed is a new connection, or a failure to make one.
	Dialed(endpoint string, err error)
	// Requested is a list or watch of a resource that was opened, or was not.
	Requested(resource string, err error)
	// Heard is an event of a watch: an object that came, changed or went.
	Heard(resource string)
}

// Client holds this node's view of the cluster. It implements loop.Task, the
// overlay's Source and Publisher, and what the daemon's modules tell users by.
type Client struct {
	cfg       Config
	log       *slog.Logger
	endpoints *reach.Endpoints // nil with a kubeconfig
	rest      *rest.Config
	core      rest.Interface
	poplin    rest.Interface
	discovery rest.Interface

	self      *view[self]
	networks  *view[network]
	apiserver *view[[]string]
	events    *event.Recorder

	ready chan struct{}

	mu          sync.Mutex
	subscribers []func()
	becameReady bool
	saved       []string
}

// New makes a client; nothing is sent before Run.
func New(cfg Config) (*Client, error) {
	c := &Client{cfg: cfg, log: cfg.Log, ready: make(chan struct{}), saved: cfg.Saved}
	if cfg.Observer == nil {
		c.cfg.Observer = discard{}
	}
	rc, err := c.restConfig()
	if err != nil {
		return nil, err
	}
	c.rest = rc
	err = group.Clients(rc, scheme(), map[schema.GroupVersion]*rest.Interface{
		coreV1: &c.core, poplinV1: &c.poplin, discoveryV1: &c.discovery,
	})
	if err != nil {
		return nil, err
	}
	c.self = newView(c, "nodes", toSelf)
	c.networks = newView(c, "nodenetworks", toNetwork)
	c.apiserver = newView(c, "endpointslices", toEndpoints)
	c.events = event.NewRecorder(event.Writer{Core: c.core, Component: "poplind", Instance: cfg.NodeName}, c.spread, cfg.Log)
	return c, nil
}

// Services makes a view of the cluster's Services, through the same
// endpoints. It is a task of its own: it need not run.
func (c *Client) Services() (*services.View, error) {
	return services.New(c.rest, c.following())
}

// Policies makes a view of the cluster's policies, in the same way.
func (c *Client) Policies() (*policies.View, error) { return policies.New(c.rest, c.following()) }

// following is how views of their own reach the API server.
func (c *Client) following() follow.Config {
	return follow.Config{Spread: c.spreadLists, Requested: c.cfg.Observer.Requested, Heard: c.cfg.Observer.Heard, Log: c.log}
}

// Access makes what asks the API server who somebody is and what they may.
func (c *Client) Access() (*access.Reviewer, error) { return access.New(c.rest) }

// Run watches, and writes Events, until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { c.events.Run(ctx) })
	wg.Go(func() { c.self.watch(ctx, c.core, &node{}, &nodeList{}, named(c.cfg.NodeName)) })
	wg.Go(func() { c.networks.watch(ctx, c.poplin, &NodeNetwork{}, &NodeNetworkList{}, everything) })
	wg.Go(func() {
		c.apiserver.watch(ctx, c.discovery, &endpointSlice{}, &endpointSliceList{}, ofService("default", "kubernetes"))
	})
	wg.Wait()
	return nil
}

// Ready is closed once this node and every NodeNetwork were read.
func (c *Client) Ready() <-chan struct{} { return c.ready }

func (c *Client) String() string { return "cluster" }

// Waiting says why the view is not complete; empty once it is.
func (c *Client) Waiting() string {
	switch {
	case !c.self.synced():
		return fmt.Sprintf("reading Node %s from the API server%s", c.cfg.NodeName, c.self.reason())
	case !c.networks.synced():
		return "reading the NodeNetworks from the API server" + c.networks.reason()
	}
	if _, err, found := c.self.get(c.cfg.NodeName); !found {
		return fmt.Sprintf("Node %s does not exist: the kubelet has not registered it, or NODE_NAME is wrong", c.cfg.NodeName)
	} else if err != nil {
		return fmt.Sprintf("Node %s cannot be used: %v", c.cfg.NodeName, err)
	}
	return ""
}

// Self implements the overlay's Source.
func (c *Client) Self() (cluster.Self, bool) {
	s, err, found := c.self.get(c.cfg.NodeName)
	return s.Self, found && err == nil
}

// Nodes implements the overlay's Source.
func (c *Client) Nodes() ([]cluster.Node, bool) {
	if !c.networks.synced() {
		return nil, false
	}
	values := c.networks.values()
	nodes := make([]cluster.Node, 0, len(values))
	for _, n := range values {
		nodes = append(nodes, n.Node)
	}
	cluster.SortNodes(nodes)
	return nodes, true
}

// Event warns the owner of an object: say it as long as it is true.
func (c *Client) Event(about cluster.Reference, why reason.Reason, message string) {
	c.events.Event(about, why, message)
}

// Skipped are the NodeNetworks that are not understood, with the reason.
func (c *Client) Skipped() map[string]string { return c.networks.skipped() }

// Server is the API server's endpoint in use.
func (c *Client) Server() string {
	if c.endpoints == nil {
		return c.cfg.Kubeconfig
	}
	return c.endpoints.InUse()
}

// Subscribe implements the overlay's Source.
func (c *Client) Subscribe(changed func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.subscribers = append(c.subscribers, changed)
}

// changed follows every change of a view.
func (c *Client) changed() {
	c.keepEndpoints()
	_, self := c.Self()
	c.mu.Lock()
	if self && c.networks.synced() && !c.becameReady {
		c.becameReady = true
		close(c.ready)
	}
	subscribers := c.subscribers
	c.mu.Unlock()
	for _, f := range subscribers {
		f()
	}
}

type discard struct{}

func (discard) Dialed(string, error)    {}
func (discard) Requested(string, error) {}
func (discard) Heard(string)            {}
