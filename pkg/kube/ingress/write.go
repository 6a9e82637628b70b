package ingress

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster"
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

// event is a core/v1 Event.
type event struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Involved   struct {
		APIVersion string `json:"apiVersion"`
		Kind       string `json:"kind"`
		Namespace  string `json:"namespace"`
		Name       string `json:"name"`
		UID        string `json:"uid"`
	} `json:"involvedObject"`
	Reason  string `json:"reason"`
	Message string `json:"message"`
	Type    string `json:"type"`
	Source  struct {
		Component string `json:"component"`
		Host      string `json:"host,omitempty"`
	} `json:"source"`
	First metav1.Time `json:"firstTimestamp"`
	Last  metav1.Time `json:"lastTimestamp"`
	Count int         `json:"count"`
}

// maxMessage is the API server's limit.
const maxMessage = 1024

// Event tells the Ingress' owner something. The name derives from what is
// said, so a replica that starts says nothing twice within the hour that
// Events live.
func (c *Client) Event(ctx context.Context, i *cluster.Ingress, warning bool, reason, message string) error {
	if len(message) > maxMessage {
		message = message[:maxMessage-3] + "..."
	}
	sum := sha256.Sum256([]byte(i.UID + reason + message))
	now := metav1.Now()
	e := event{APIVersion: "v1", Kind: "Event", Reason: reason, Message: message, Type: "Normal", First: now, Last: now, Count: 1}
	if warning {
		e.Type = "Warning"
	}
	e.Metadata = metav1.ObjectMeta{Namespace: i.Namespace, Name: i.Name[:min(len(i.Name), 230)] + "." + hex.EncodeToString(sum[:8])}
	e.Involved.APIVersion, e.Involved.Kind = networkingV1.String(), "Ingress"
	e.Involved.Namespace, e.Involved.Name, e.Involved.UID = i.Namespace, i.Name, i.UID
	e.Source.Component, e.Source.Host = c.cfg.Component, c.cfg.Instance
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	err = c.core.Post().Namespace(i.Namespace).Resource("events").SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Error()
	if err != nil && !apierrors.IsAlreadyExists(err) && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write Event about Ingress %s: %w", i.ObjectName, err)
	}
	return nil
}
