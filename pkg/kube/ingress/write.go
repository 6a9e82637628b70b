package ingress

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/kube/event"
)

const writeTimeout = 10 * time.Second

// PublishStatus makes an Ingress say at which addresses it answers. Nothing
// is sent where it does already.
func (c *Client) PublishStatus(ctx context.Context, i *cluster.Ingress, addresses []cluster.IngressAddress) error {
	if slices.Equal(i.Status, addresses) {
		return nil
	}
	list := make([]addressJSON, len(addresses))
	for n, a := range addresses {
		list[n] = addressJSON(a)
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": list}}})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = c.networking.Patch(types.MergePatchType).Namespace(i.Namespace).Resource("ingresses").Name(i.Name).SubResource("status").Body(patch).Do(ctx).Error()
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write status of Ingress %s: %w", i.ObjectName, err)
	}
	return nil
}

// Event tells the Ingress' owner something. A replica that starts says
// nothing twice within the hour that Events live.
func (c *Client) Event(ctx context.Context, i *cluster.Ingress, why reason.Reason, message string) error {
	w := event.Writer{Core: c.core, Component: c.cfg.Component, Instance: c.cfg.Instance}
	about := cluster.Reference{APIVersion: networkingV1.String(), Kind: "Ingress", Namespace: i.Namespace, Name: i.Name, UID: i.UID}
	_, err := w.Create(ctx, event.Event{About: about, Reason: why, Message: message})
	if apierrors.IsNotFound(err) {
		return nil // its namespace is gone
	}
	return err
}
