// Package explain answers people's questions about policies: who reaches whom,
// and which rule decides. Inputs are the objects of a cluster, or manifests
// with a list of what is expected of them; outputs are answers of
// pkg/policy/reach. It refuses to write anything, and needs no daemon.
package explain

import (
	"context"
	"fmt"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube"
)

// Read reads all objects of a cluster once.
func Read(ctx context.Context, conf kube.Config) (policy.Objects, error) {
	var o policy.Objects
	client, err := kube.New(conf)
	if err != nil {
		return o, err
	}
	view, err := client.Policies()
	if err != nil {
		return o, err
	}
	view.WithNodes()
	watching, stop := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = view.Run(watching) // ends without an error when told to
	}()
	defer func() { stop(); <-ended }()
	select {
	case <-view.Ready():
	case <-ctx.Done():
		return o, fmt.Errorf("read pods, namespaces, nodes and policies: %w: %s", ctx.Err(), view.Waiting())
	}
	return view.Objects(), nil // nodes are known: none waits
}
