package kube

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"poplin.dev/poplin/pkg/cluster"
)

// NodeStatus is one node as the API server shows it.
type NodeStatus struct {
	Name string `json:"name"`
	// Exists says that there is a Node of this name, Ready that its kubelet
	// says so.
	Exists bool `json:"exists"`
	Ready  bool `json:"ready"`
	// What the node published; zero values when it did not.
	PodCIDRs []netip.Prefix `json:"podCIDRs"`
	VTEP     netip.Addr     `json:"vtep"`
	MAC      string         `json:"mac"`
	MTU      int            `json:"mtu"`
	// Problem says in words what is wrong; empty when nothing is.
	Problem string `json:"problem,omitempty"`
}

// pageSize bounds what one answer costs the API server and this process.
const pageSize = 500

// Overview reads every Node and NodeNetwork once, sorted by name.
func (c *Client) Overview(ctx context.Context) ([]NodeStatus, error) {
	nodes := map[string]*NodeStatus{}
	err := pages(func(options metav1.ListOptions) (string, error) {
		var list nodeList
		err := c.core.Get().Resource("nodes").VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(&list)
		for _, o := range list.Items {
			nodes[o.Name] = toStatus(o)
		}
		return list.Continue, err
	})
	if err != nil {
		return nil, fmt.Errorf("list Nodes: %w", err)
	}
	err = pages(func(options metav1.ListOptions) (string, error) {
		var list NodeNetworkList
		err := c.poplin.Get().Resource("nodenetworks").VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(&list)
		for _, o := range list.Items {
			addNetwork(nodes, &o)
		}
		return list.Continue, err
	})
	if err != nil {
		return nil, fmt.Errorf("list NodeNetworks: %w", err)
	}
	all := make([]NodeStatus, 0, len(nodes))
	for _, name := range slices.Sorted(maps.Keys(nodes)) {
		s := nodes[name]
		if s.MTU == 0 && s.Problem == "" {
			s.Problem = "poplind has not published a NodeNetwork: see the log of its pod on this node"
		}
		all = append(all, *s)
	}
	return all, nil
}

// Networks reads every NodeNetwork that is understood once, by age.
func (c *Client) Networks(ctx context.Context) (nodes []cluster.Node, err error) {
	err = pages(func(options metav1.ListOptions) (string, error) {
		var list NodeNetworkList
		err := c.poplin.Get().Resource("nodenetworks").VersionedParams(&options, metav1.ParameterCodec).Do(ctx).Into(&list)
		for _, o := range list.Items {
			if n, err := toNetwork(&o); err == nil {
				nodes = append(nodes, n.Node)
			}
		}
		return list.Continue, err
	})
	if err != nil {
		return nil, fmt.Errorf("list NodeNetworks: %w", err)
	}
	cluster.SortNodes(nodes)
	return nodes, nil
}

func toStatus(o node) *NodeStatus {
	s := &NodeStatus{Name: o.Name, Exists: true}
	for _, c := range o.Status.Conditions {
		s.Ready = s.Ready || c.Type == "Ready" && c.Status == "True"
	}
	if len(o.Spec.PodCIDRs) == 0 {
		s.Problem = "the Node has no spec.podCIDRs: start kube-controller-manager with --allocate-node-cidrs and --cluster-cidr"
	}
	return s
}

func addNetwork(nodes map[string]*NodeStatus, o *NodeNetwork) {
	s, found := nodes[o.Name]
	if !found {
		s = &NodeStatus{Name: o.Name, Problem: "there is no Node of this name"}
		nodes[o.Name] = s
	}
	n, err := toNetwork(o)
	if err != nil {
		s.Problem = "its NodeNetwork is not understood: " + err.Error()
		return
	}
	s.PodCIDRs, s.VTEP, s.MAC, s.MTU = n.PodCIDRs, n.VTEP.Addr, macText(n.VTEP), n.MTU
}

func pages(list func(metav1.ListOptions) (next string, err error)) error {
	options := metav1.ListOptions{Limit: pageSize}
	for {
		next, err := list(options)
		if err != nil || next == "" {
			return err
		}
		options.Continue = next
	}
}
