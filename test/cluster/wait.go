package cluster

import (
	"context"
	"time"

	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/pki"
)

// API is a client of the API server.
func (c *Cluster) API() (*api.Client, error) {
	return api.New(c.Server(), api.Files{
		CA: c.pki(pki.CACert), Certificate: c.pki(pki.Certificate("admin")), Key: c.pki(pki.Key("admin")),
	}, c.DialContext)
}

// waitFor asks the API server until ask is content, or a daemon is dead.
func (c *Cluster) waitFor(ctx context.Context, what string, daemons []string, ask func(context.Context, *api.Client) error) error {
	client, err := c.API()
	if err != nil {
		return err
	}
	defer client.Close()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return api.Poll(ctx, 3*time.Minute, what, func(ctx context.Context) error {
		err := ask(ctx, client)
		if err == nil {
			return nil
		}
		for _, daemon := range daemons {
			if dead := c.dead(daemon); dead != nil {
				cancel(dead)
				return dead
			}
		}
		return err
	})
}

func (c *Cluster) waitAPI(ctx context.Context) error {
	return c.waitFor(ctx, "the API server", []string{build.Etcd, build.APIServer}, func(ctx context.Context, client *api.Client) error {
		return client.Get(ctx, "/readyz", nil)
	})
}

func (c *Cluster) kubelets() (daemons []string) {
	for _, node := range c.Nodes() {
		daemons = append(daemons, "kubelet-"+node)
	}
	return daemons
}

// waitRegistered waits until each node is known and has its podCIDRs.
func (c *Cluster) waitRegistered(ctx context.Context) error {
	return c.waitFor(ctx, "the nodes to register", c.kubelets(), func(ctx context.Context, client *api.Client) error {
		return client.Registered(ctx, c.Options.Nodes, c.plan.Families)
	})
}

// WaitReady waits until each node is Ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.waitFor(ctx, "the nodes to be Ready", c.kubelets(), func(ctx context.Context, client *api.Client) error {
		return client.Ready(ctx, c.Options.Nodes)
	})
}

// waitServiceAccount: without it no pod can be made in the default namespace.
func (c *Cluster) waitServiceAccount(ctx context.Context) error {
	return c.waitFor(ctx, "the default service account", []string{build.ControllerManager}, func(ctx context.Context, client *api.Client) error {
		return client.Get(ctx, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

func (c *Cluster) waitDNS(ctx context.Context) error {
	return c.waitFor(ctx, "CoreDNS", nil, func(ctx context.Context, client *api.Client) error {
		return client.Deployed(ctx, "kube-system", "coredns")
	})
}
