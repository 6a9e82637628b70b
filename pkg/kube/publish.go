package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster"
)

const (
	networkUnavailable = "NetworkUnavailable"
	// writeTimeout is well below what counts as a loop that hangs.
	writeTimeout  = 5 * time.Second
	writeAttempts = 3
)

// Publish makes this node's own NodeNetwork say n. Nothing is sent while the
// watch shows that it does.
func (c *Client) Publish(ctx context.Context, n cluster.Node) error {
	self, ok := c.Self()
	switch {
	case !ok:
		return errors.New("publish NodeNetwork: this node's Node was not read yet")
	case n.Name != c.cfg.NodeName:
		return fmt.Errorf("publish NodeNetwork %s: this is node %s", n.Name, c.cfg.NodeName)
	}
	if err := n.Validate(); err != nil {
		return fmt.Errorf("publish NodeNetwork %s: %w", n.Name, err)
	}
	owner := types.UID(self.UID)
	if now, err, found := c.networks.get(n.Name); found && err == nil && now.Equal(n) && now.owner == owner {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	for attempt := 1; ; attempt++ {
		err := c.write(ctx, n, owner)
		// The object came, went or changed between the read and the write.
		raced := apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err)
		if raced && attempt < writeAttempts {
			continue
		}
		if apierrors.IsNotFound(err) {
			return fmt.Errorf("publish NodeNetwork %s: apply the CustomResourceDefinition nodenetworks.poplin.dev of install/manifests/poplin.yaml: %w", n.Name, err)
		}
		if err != nil {
			return fmt.Errorf("publish NodeNetwork %s: %w", n.Name, err)
		}
		return nil
	}
}

// write compares with the API server's state and sends the difference, if any.
func (c *Client) write(ctx context.Context, n cluster.Node, owner types.UID) error {
	spec, err := fromNode(n)
	if err != nil {
		return err
	}
	// The Node's garbage is collected with it; blockOwnerDeletion would need
	// a right on the Node's finalizers.
	owners := []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: n.Name, UID: owner}}
	var now NodeNetwork
	err = c.poplin.Get().Resource("nodenetworks").Name(n.Name).Do(ctx).Into(&now)
	if apierrors.IsNotFound(err) {
		o := &NodeNetwork{
			TypeMeta:   metav1.TypeMeta{APIVersion: poplinV1.String(), Kind: "NodeNetwork"},
			ObjectMeta: metav1.ObjectMeta{Name: n.Name, OwnerReferences: owners},
			Spec:       spec,
		}
		return c.poplin.Post().Resource("nodenetworks").Body(o).Do(ctx).Error()
	}
	if err != nil {
		return err
	}
	if current, err := toNetwork(&now); err == nil && current.Equal(n) && current.owner == owner {
		return nil
	}
	now.TypeMeta = metav1.TypeMeta{APIVersion: poplinV1.String(), Kind: "NodeNetwork"}
	now.OwnerReferences, now.Spec = owners, spec
	return c.poplin.Put().Resource("nodenetworks").Name(n.Name).Body(&now).Do(ctx).Error()
}

// NetworkAvailable tells the cluster that this node's pods have a network. A
// cloud's controller adds the condition NetworkUnavailable to new nodes, and
// no pod is scheduled before it is False; elsewhere there is no condition and
// nothing is sent.
func (c *Client) NetworkAvailable(ctx context.Context) error {
	if s, err, found := c.self.get(c.cfg.NodeName); !found || err != nil || !s.unavailable {
		return nil
	}
	now := metav1.Now()
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": []nodeCondition{{
		Type: networkUnavailable, Status: "False",
		Reason: "PoplinIsUp", Message: "Poplin's overlay is in place on this node",
		LastHeartbeatTime: now, LastTransitionTime: now,
	}}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// Strategic merge replaces the condition of this type and no other.
	err = c.core.Patch(types.StrategicMergePatchType).Resource("nodes").Name(c.cfg.NodeName).SubResource("status").Body(patch).Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("set condition %s of Node %s: %w", networkUnavailable, c.cfg.NodeName, err)
	}
	return nil
}
