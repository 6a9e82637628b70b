// Package door puts poplin-ingress on a real cluster of test/cluster and comes
// to it from outside, as a load balancer would. Input is a running cluster;
// outputs are connections through node ports, from the nodes' LAN. It refuses
// to know who programs the Services: it asks their health check port which
// node has a replica.
package door

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/thread"
)

// Namespace and Name are those of the Deployment and of the Service in front.
const (
	Namespace = "poplin-system"
	Name      = "poplin-ingress"
)

// Door is the Service in front of the replicas, seen from outside.
type Door struct {
	cluster *cluster.Cluster
	server  *api.Client
	ports   map[string]uint16 // node ports, by the Service's
	health  uint16
	nodes   map[string]netip.Addr
	probe   *http.Client
}

// Install puts the project's image and manifest on a cluster, waits until all
// replicas serve, and opens the door. It may be called again.
func Install(ctx context.Context, c *cluster.Cluster) (*Door, error) {
	root, err := cluster.ProjectRoot()
	if err != nil {
		return nil, err
	}
	if err := c.LoadImage(ctx, filepath.Join(root, "dist/poplin-ingress-image.tar"), ""); err != nil {
		return nil, fmt.Errorf("install poplin-ingress: %w; make the image (make image)", err)
	}
	for _, args := range [][]string{
		{"apply", "--server-side", "-f", filepath.Join(root, "install/manifests/poplin-ingress.yaml")},
		{"-n", Namespace, "rollout", "status", "deployment/" + Name, "--timeout=120s"},
	} {
		if _, err := c.Kubectl(ctx, args...); err != nil {
			return nil, fmt.Errorf("install poplin-ingress: %w", err)
		}
	}
	return open(ctx, c)
}

func open(ctx context.Context, c *cluster.Cluster) (*Door, error) {
	certificates := filepath.Dir(c.Kubeconfig())
	server, err := api.New(c.Server(), api.Files{
		CA:          filepath.Join(certificates, pki.CACert),
		Certificate: filepath.Join(certificates, pki.Certificate("admin")),
		Key:         filepath.Join(certificates, pki.Key("admin")),
	}, c.DialContext)
	if err != nil {
		return nil, err
	}
	d := &Door{cluster: c, server: server, ports: map[string]uint16{}, nodes: map[string]netip.Addr{}}
	d.probe = &http.Client{Timeout: time.Second, Transport: &http.Transport{DialContext: d.lan}}
	var service struct {
		Spec struct {
			HealthCheckNodePort uint16
			Ports               []struct {
				Port     int
				NodePort uint16
			}
		}
	}
	if err := d.server.Get(ctx, "/api/v1/namespaces/"+Namespace+"/services/"+Name, &service); err != nil {
		return nil, err
	}
	d.health = service.Spec.HealthCheckNodePort
	for _, p := range service.Spec.Ports {
		d.ports[strconv.Itoa(p.Port)] = p.NodePort
	}
	var nodes struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	if err := d.server.Get(ctx, "/api/v1/nodes", &nodes); err != nil {
		return nil, err
	}
	for _, n := range nodes.Items {
		for _, a := range n.Status.Addresses {
			if a.Type == "InternalIP" && !d.nodes[n.Metadata.Name].IsValid() {
				d.nodes[n.Metadata.Name] = netip.MustParseAddr(a.Address)
			}
		}
	}
	return d, nil
}

// lan connects from the nodes' LAN.
func (d *Door) lan(ctx context.Context, network, address string) (net.Conn, error) {
	var c net.Conn
	err := thread.In(d.cluster.UnderlayNamespace(), func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Serves reports whether a node says that it has a replica.
func (d *Door) Serves(node string) bool {
	resp, err := d.probe.Get("http://" + netip.AddrPortFrom(d.nodes[node], d.health).String() + "/healthz")
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Node is one that has a replica, at random.
func (d *Door) Node() (string, error) {
	names := d.cluster.Nodes()
	rand.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	if i := slices.IndexFunc(names, d.Serves); i >= 0 {
		return names[i], nil
	}
	return "", errors.New("find poplin-ingress: no node says that it has a replica")
}

// Dial connects to port 80 or 443 of a node that has a replica, whatever the
// address' host.
func (d *Door) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	node, err := d.Node()
	if err != nil {
		return nil, err
	}
	return d.Via(node)(ctx, network, address)
}

// Via connects through one node.
func (d *Door) Via(node string) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return d.lan(ctx, network, d.At(node, port).String())
	}
}

// At is where a node answers for a port of the Service.
func (d *Door) At(node, port string) netip.AddrPort {
	return netip.AddrPortFrom(d.nodes[node], d.ports[port])
}

// Replica is one pod of the Deployment.
type Replica struct {
	Pod, Node string
	Addr      netip.Addr // not valid before the pod has one
}

// Replicas are the pods that do not end.
func (d *Door) Replicas(ctx context.Context) ([]Replica, error) {
	var pods struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Spec   struct{ NodeName string }
			Status struct{ PodIP string }
		}
	}
	if err := d.server.Get(ctx, "/api/v1/namespaces/"+Namespace+"/pods?labelSelector=app.kubernetes.io/name="+Name, &pods); err != nil {
		return nil, err
	}
	var list []Replica
	for _, p := range pods.Items {
		if p.Metadata.DeletionTimestamp == nil {
			addr, _ := netip.ParseAddr(p.Status.PodIP)
			list = append(list, Replica{p.Metadata.Name, p.Spec.NodeName, addr})
		}
	}
	return list, nil
}
