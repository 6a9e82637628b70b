// Package scratch makes a namespace for a test and takes it away. Inputs are a
// kubeconfig, a label and objects; outputs are these objects in a namespace of
// their own, and nothing of them afterwards. It refuses to write to namespaces
// that do not bear the label.
package scratch

import (
	"context"
	"encoding/json"
	"fmt"
	"path"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/kube/group"
	"poplin.dev/poplin/pkg/version"
)

const namespaces = "/api/v1/namespaces"

// Client makes and removes namespaces of one label.
type Client struct {
	core  rest.Interface
	label string
}

// New makes a client; nothing is sent.
func New(kubeconfig, label string) (*Client, error) {
	conf, err := group.Connect(kubeconfig)
	if err != nil {
		return nil, err
	}
	conf.UserAgent = "poplinctl/" + version.Version
	known, core := runtime.NewScheme(), schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(known, core)
	c := &Client{label: label}
	return c, group.Clients(conf, known, map[schema.GroupVersion]*rest.Interface{core: &c.core})
}

// Object is one to be made: its group and resource, such as "apps/v1" and
// "daemonsets", and what it says.
type Object struct {
	Group, Resource string
	Body            map[string]any
}

// Make makes a namespace with the label, and the objects in it.
func (c *Client) Make(ctx context.Context, name string, list []Object) error {
	space := map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name, "labels": map[string]string{c.label: "true"}}}
	if err := c.create(ctx, namespaces, space); err != nil {
		return fmt.Errorf("make namespace %s: %w", name, err)
	}
	for _, o := range list {
		root := "/apis/" + o.Group
		if o.Group == "v1" {
			root = "/api/v1"
		}
		if err := c.create(ctx, path.Join(root, "namespaces", name, o.Resource), o.Body); err != nil {
			return fmt.Errorf("make %s in namespace %s: %w", o.Resource, name, err)
		}
	}
	return nil
}

func (c *Client) create(ctx context.Context, at string, o map[string]any) error {
	text, err := json.Marshal(o)
	if err != nil {
		return err
	}
	return c.core.Post().AbsPath(at).SetHeader("Content-Type", "application/json").Body(text).Do(ctx).Error()
}

// Remove removes all namespaces with the label, those of runs that were killed
// too, and waits until they are gone.
func (c *Client) Remove(ctx context.Context) error {
	for {
		names, err := c.names(ctx)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			// One that is going already says so again.
			if err := c.core.Delete().AbsPath(path.Join(namespaces, name)).Do(ctx).Error(); err != nil && ctx.Err() != nil {
				return fmt.Errorf("remove namespace %s: %w", name, err)
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("remove namespaces %v: they are still there: %w", names, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

func (c *Client) names(ctx context.Context) (names []string, err error) {
	b, err := c.core.Get().AbsPath(namespaces).Param("labelSelector", c.label+"=true").Do(ctx).Raw()
	if err != nil {
		return nil, fmt.Errorf("find namespaces of tests: %w", err)
	}
	var list struct {
		Items []struct {
			Meta struct {
				Name string `json:"name"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("find namespaces of tests: %w", err)
	}
	for _, o := range list.Items {
		names = append(names, o.Meta.Name)
	}
	return names, nil
}
