package api

import (
	"context"
	"fmt"
	"strings"
)

// Node is what we want to know of a node.
type Node struct {
	Metadata struct{ Name string }
	Spec     struct{ PodCIDRs []string }
	Status   struct {
		Conditions []struct{ Type, Status, Message string }
	}
}

// Ready says whether a node is Ready and, if not, why.
func (n Node) Ready() (bool, string) {
	for _, condition := range n.Status.Conditions {
		if condition.Type == "Ready" {
			return condition.Status == "True", condition.Message
		}
	}
	return false, "the kubelet has not said yet"
}

// Nodes lists the nodes.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	var list struct{ Items []Node }
	err := c.Get(ctx, "/api/v1/nodes", &list)
	return list.Items, err
}

// Deployed refuses a deployment of which not all replicas are ready.
func (c *Client) Deployed(ctx context.Context, namespace, name string) error {
	var deployment struct {
		Spec   struct{ Replicas int }
		Status struct{ ReadyReplicas int }
	}
	if err := c.Get(ctx, "/apis/apps/v1/namespaces/"+namespace+"/deployments/"+name, &deployment); err != nil {
		return err
	}
	if got, want := deployment.Status.ReadyReplicas, deployment.Spec.Replicas; got < want || want == 0 {
		return fmt.Errorf("%d of %d replicas are ready", got, want)
	}
	return nil
}

// Registered refuses fewer nodes than that, and nodes with fewer pod ranges.
func (c *Client) Registered(ctx context.Context, nodes, ranges int) error {
	list, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	if len(list) < nodes {
		return fmt.Errorf("%d of %d nodes are registered", len(list), nodes)
	}
	for _, node := range list {
		if len(node.Spec.PodCIDRs) < ranges {
			return fmt.Errorf("node %s has no podCIDRs", node.Metadata.Name)
		}
	}
	return nil
}

// Ready refuses fewer nodes than that, and nodes that are not Ready.
func (c *Client) Ready(ctx context.Context, nodes int) error {
	list, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	var waiting []string
	for _, node := range list {
		if ready, why := node.Ready(); !ready {
			waiting = append(waiting, node.Metadata.Name+": "+why)
		}
	}
	if len(list) < nodes || len(waiting) > 0 {
		return fmt.Errorf("%d nodes, not Ready: %s", len(list), strings.Join(waiting, "; "))
	}
	return nil
}
