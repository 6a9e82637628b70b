// Package ingress reads from the API server what an Ingress controller needs,
// and writes back what users see of it. Inputs are credentials and the names
// of Secrets that are wanted; outputs are cluster values, told one by one to
// functions of the reader, and three writes: the status of an Ingress, Events
// about it, nothing else. It refuses to list Secrets: each is watched by its
// name. It never gives up on the API server.
package ingress

import (
	"context"
	"log/slog"
	"net/http"
	"slices"
	"sync"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/kube/group"
	"poplin.dev/poplin/pkg/version"
)

// Reader is told of every object, and of nil when it is gone. Its functions
// are called from several goroutines.
type Reader struct {
	Class     func(name string, c *cluster.IngressClass)
	Ingress   func(name cluster.ObjectName, i *cluster.Ingress)
	Service   func(name cluster.ObjectName, s *cluster.Service)
	Endpoints func(service cluster.ObjectName, slice string, s *cluster.EndpointSlice)
	Secret    func(name cluster.ObjectName, s *cluster.Secret)
	// Synced is called once, when every object there is was told of,
	// Secrets aside.
	Synced func()
}

// Config says which API server.
type Config struct {
	// Kubeconfig is for development; without it the pod's own token is used.
	Kubeconfig string
	// Namespaces are watched; none is all of them.
	Namespaces []string
	// Component and Instance sign Events.
	Component, Instance string
	Log                 *slog.Logger
}

// Client reads and writes. It implements loop.Task.
type Client struct {
	cfg    Config
	log    *slog.Logger
	reader Reader

	core, networking, discovery rest.Interface

	ready   chan struct{}
	mu      sync.Mutex
	waiting int // collections not read yet
	secrets map[cluster.ObjectName]context.CancelFunc
	wanted  []cluster.ObjectName // the keys of secrets, as they were given
	// started is the context of Run, or nil before it.
	started context.Context
	wg      sync.WaitGroup
}

// New makes a client; nothing is sent before Run.
func New(cfg Config, reader Reader) (*Client, error) {
	rc, err := group.Connect(cfg.Kubeconfig)
	if err != nil {
		return nil, err
	}
	return newClient(cfg, rc, reader)
}

func newClient(cfg Config, rc *rest.Config, reader Reader) (*Client, error) {
	c := &Client{cfg: cfg, log: cfg.Log, reader: reader, ready: make(chan struct{}), secrets: map[cluster.ObjectName]context.CancelFunc{}}
	rc.UserAgent = "poplin-ingress/" + version.Version
	// Thousands of Secrets are asked for at a start. The server says what is
	// too much; here they only wait for each other.
	rc.QPS = -1
	rc.Wrap(func(next http.RoundTripper) http.RoundTripper { return &turnstile{next, make(chan struct{}, atOnce)} })
	err := group.Clients(rc, scheme(), map[schema.GroupVersion]*rest.Interface{
		coreV1: &c.core, networkingV1: &c.networking, discoveryV1: &c.discovery,
	})
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Run watches until ctx ends.
func (c *Client) Run(ctx context.Context) error {
	namespaces := c.cfg.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{""}
	}
	stores := []*store{newStore(c, c.networking, "ingressclasses", "", c.tellClass)}
	for _, ns := range namespaces {
		stores = append(stores,
			newStore(c, c.networking, "ingresses", ns, c.tellIngress),
			newStore(c, c.core, "services", ns, c.tellService),
			newStore(c, c.discovery, "endpointslices", ns, c.tellEndpoints))
	}
	c.mu.Lock()
	c.started, c.waiting = ctx, len(stores)
	for name := range c.secrets {
		c.watchSecret(name)
	}
	c.mu.Unlock()
	for _, s := range stores {
		c.wg.Go(func() { s.watch(ctx) })
	}
	<-ctx.Done()
	c.wg.Wait()
	return nil
}

// Ready is closed once every collection was read.
func (c *Client) Ready() <-chan struct{} { return c.ready }

func (c *Client) String() string { return "cluster" }

// synced is called by each store when it is complete for the first time.
func (c *Client) synced() {
	c.mu.Lock()
	c.waiting--
	done := c.waiting == 0
	c.mu.Unlock()
	if done {
		c.reader.Synced()
		close(c.ready)
	}
}

// WantSecrets says which Secrets are to be watched from now on. The list is not
// to be changed afterwards.
func (c *Client) WantSecrets(names []cluster.ObjectName) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if slices.Equal(names, c.wanted) {
		return
	}
	c.wanted = names
	wanted := make(map[cluster.ObjectName]bool, len(names))
	for _, n := range names {
		wanted[n] = true
		if _, watched := c.secrets[n]; !watched {
			c.secrets[n] = nil
			if c.started != nil {
				c.watchSecret(n)
			}
		}
	}
	for n, stop := range c.secrets {
		if !wanted[n] {
			if stop != nil {
				stop()
			}
			delete(c.secrets, n)
		}
	}
}

// watchSecret is called with mu held.
func (c *Client) watchSecret(n cluster.ObjectName) {
	ctx, stop := context.WithCancel(c.started)
	c.secrets[n] = stop
	s := newSecretStore(c, n)
	c.wg.Go(func() { s.watch(ctx) })
}
