package kube

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"poplin.dev/poplin/pkg/kube/reach"
	"poplin.dev/poplin/pkg/version"
)

const (
	credentials = "/var/run/secrets/kubernetes.io/serviceaccount"
	// serverName is in every API server's certificate, whatever address it
	// is reached by.
	serverName = "kubernetes.default.svc"
)

// restConfig says how to reach the API server, and as whom.
func (c *Client) restConfig() (*rest.Config, error) {
	rc, err := c.identity()
	if err != nil {
		return nil, err
	}
	rc.UserAgent = "poplin/" + version.Version
	rc.QPS, rc.Burst = 5, 20
	return rc, nil
}

func (c *Client) identity() (*rest.Config, error) {
	if path := c.cfg.Kubeconfig; path != "" {
		rc, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", path, err)
		}
		return rc, nil
	}
	var err error
	if c.endpoints, err = reach.New(c.cfg.Endpoints, c.cfg.Saved, serviceAddress(), c.cfg.Observer.Dialed); err != nil {
		return nil, err
	}
	dir := c.cfg.Credentials
	if dir == "" {
		dir = credentials
	}
	token := filepath.Join(dir, "token")
	if _, err := os.Stat(token); err != nil {
		return nil, fmt.Errorf("find the service account's token (outside a pod, give a kubeconfig): %w", err)
	}
	return &rest.Config{
		Host:            "https://" + serverName,
		BearerTokenFile: token, // read again as the kubelet renews it
		Transport:       c.endpoints.Transport(filepath.Join(dir, "ca.crt")),
	}, nil
}

// serviceAddress is that of the Service default/kubernetes, as the kubelet
// gives it to every container.
func serviceAddress() string {
	host, port := os.Getenv("KUBERNETES_SERVICE_HOST"), os.Getenv("KUBERNETES_SERVICE_PORT")
	if host == "" || port == "" {
		return ""
	}
	return net.JoinHostPort(host, port)
}

// keepEndpoints uses and saves the API server's endpoints that are known now.
// An empty list is not believed: something answered it.
func (c *Client) keepEndpoints() {
	if c.endpoints == nil || !c.apiserver.synced() {
		return
	}
	now := slices.Concat(c.apiserver.values()...)
	c.mu.Lock()
	changed := len(now) > 0 && !slices.Equal(now, c.saved)
	if changed {
		c.saved = now
	}
	c.mu.Unlock()
	if !changed {
		return
	}
	c.endpoints.Replace(now)
	if c.cfg.Save == nil {
		return
	}
	if err := c.cfg.Save(now); err != nil {
		c.log.Warn("cannot save the API server's endpoints; a restart without Services will have to find it otherwise", "error", err)
	}
}
