package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/pki"
)

// api asks the API server as the administrator. A few GETs do not need a client
// library.
func (c *Cluster) api() (*http.Client, error) {
	authority, err := os.ReadFile(c.pki(pki.CACert))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(c.pki(pki.Certificate("admin")), c.pki(pki.Key("admin")))
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext:       c.DialContext,
			TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
			ForceAttemptHTTP2: true,
		},
	}, nil
}

// get reads one object.
func (c *Cluster) get(ctx context.Context, client *http.Client, path string, into any) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.plan.server()+path, nil)
	if err != nil {
		return err
	}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("get %s: %s: %s", path, response.Status, lastLines(body, 1))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(body, into)
}

func lastLines(text []byte, n int) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}

// waitFor asks the API server until ask is content, or a daemon is dead.
func (c *Cluster) waitFor(ctx context.Context, what string, daemons []string, ask func(context.Context, *http.Client) error) error {
	client, err := c.api()
	if err != nil {
		return err
	}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	return poll(ctx, 3*time.Minute, what, func(ctx context.Context) error {
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
	return c.waitFor(ctx, "the API server", []string{build.Etcd, build.APIServer}, func(ctx context.Context, client *http.Client) error {
		return c.get(ctx, client, "/readyz", nil)
	})
}

// nodeStatus is what we want to know of the API's nodes.
type nodeStatus struct {
	Metadata struct{ Name string }
	Spec     struct{ PodCIDRs []string }
	Status   struct {
		Conditions []struct{ Type, Status, Message string }
	}
}

// ready says whether a node is Ready and, if not, why.
func (n nodeStatus) ready() (bool, string) {
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", condition.Message
		}
	}
	return false, "the kubelet has not said yet"
}

func (c *Cluster) nodes(ctx context.Context, client *http.Client) ([]nodeStatus, error) {
	var list struct{ Items []nodeStatus }
	return list.Items, c.get(ctx, client, "/api/v1/nodes", &list)
}

func (c *Cluster) kubelets() (daemons []string) {
	for _, node := range c.Nodes() {
		daemons = append(daemons, "kubelet-"+node)
	}
	return daemons
}

// waitRegistered waits until each node is known and has its podCIDRs.
func (c *Cluster) waitRegistered(ctx context.Context) error {
	return c.waitFor(ctx, "the nodes to register", c.kubelets(), func(ctx context.Context, client *http.Client) error {
		var list struct{ Items []nodeStatus }
		if err := c.get(ctx, client, "/api/v1/nodes", &list); err != nil {
			return err
		}
		if len(list.Items) < c.Options.Nodes {
			return fmt.Errorf("%d of %d nodes are registered", len(list.Items), c.Options.Nodes)
		}
		for _, node := range list.Items {
			if len(node.Spec.PodCIDRs) < c.plan.families {
				return fmt.Errorf("node %s has no podCIDRs", node.Metadata.Name)
			}
		}
		return nil
	})
}

// WaitReady waits until each node is Ready.
func (c *Cluster) WaitReady(ctx context.Context) error {
	return c.waitFor(ctx, "the nodes to be Ready", c.kubelets(), func(ctx context.Context, client *http.Client) error {
		list, err := c.nodes(ctx, client)
		if err != nil {
			return err
		}
		var waiting []string
		for _, node := range list {
			if ready, why := node.ready(); !ready {
				waiting = append(waiting, node.Metadata.Name+": "+why)
			}
		}
		if len(list) < c.Options.Nodes || len(waiting) > 0 {
			return fmt.Errorf("%d nodes, not Ready: %s", len(list), strings.Join(waiting, "; "))
		}
		return nil
	})
}

// waitServiceAccount: without it no pod can be made in the default namespace.
func (c *Cluster) waitServiceAccount(ctx context.Context) error {
	return c.waitFor(ctx, "the default service account", []string{build.ControllerManager}, func(ctx context.Context, client *http.Client) error {
		return c.get(ctx, client, "/api/v1/namespaces/default/serviceaccounts/default", nil)
	})
}

func (c *Cluster) waitDNS(ctx context.Context) error {
	return c.waitFor(ctx, "CoreDNS", nil, func(ctx context.Context, client *http.Client) error {
		var deployment struct {
			Spec   struct{ Replicas int }
			Status struct{ ReadyReplicas int }
		}
		if err := c.get(ctx, client, "/apis/apps/v1/namespaces/kube-system/deployments/coredns", &deployment); err != nil {
			return err
		}
		if got, want := deployment.Status.ReadyReplicas, deployment.Spec.Replicas; got < want || want == 0 {
			return fmt.Errorf("%d of %d replicas are ready", got, want)
		}
		return nil
	})
}
