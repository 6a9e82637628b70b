// Package fleet runs a command in the daemon's pod on many nodes at once. Inputs
// are a person's client, names of nodes and the command; outputs are what each
// printed, or why there is nothing. It refuses to wait for one node longer than
// it was told to: a node that does not answer is an answer too.
package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/kube/person"
)

const (
	// namespace is the manifests'.
	namespace = "poplin-system"
	container = "poplind"
	selector  = "app.kubernetes.io/name=" + container
	// atOnce bounds the load on the API server, through which all of it goes.
	atOnce = 32
)

// Client is what a person may ask of the API server.
type Client interface {
	Run(ctx context.Context, namespace, pod, container string, command []string) ([]byte, error)
}

// Pod is a daemon's.
type Pod struct {
	Meta struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
		// Deleted is when the pod was told to go; nil while it may stay.
		Deleted *time.Time `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
	} `json:"status"`
}

// Pods are those of all nodes, by node. Of two on one node, as in an update, the
// one that runs counts. Who has installed Poplin in another namespace than its
// manifests do has them found in any, which takes the right to list pods there,
// unless in says which namespace it is.
func Pods(ctx context.Context, c *person.Client, in string) (map[string]Pod, error) {
	list, err := person.List[Pod](ctx, c, person.Path("v1", cmp.Or(in, namespace), "pods", ""), selector, "")
	if err == nil && len(list) == 0 && in == "" {
		list, err = person.List[Pod](ctx, c, person.Path("v1", "", "pods", ""), selector, "")
	}
	if err != nil {
		return nil, fmt.Errorf("find the daemons' pods: %w", err)
	}
	byNode := map[string]Pod{}
	for _, p := range list {
		if had, found := byNode[p.Spec.NodeName]; !found || had.Status.Phase != "Running" {
			byNode[p.Spec.NodeName] = p
		}
	}
	return byNode, nil
}

// Home is the namespace of the pods that were found; without any, the manifests'.
func Home(pods map[string]Pod) string {
	for _, p := range pods {
		if p.Meta.Namespace != "" {
			return p.Meta.Namespace
		}
	}
	return namespace
}

// Answer is one node's.
type Answer struct {
	Node string
	Out  []byte
	Err  error
}

// Run connects with a kubeconfig, and runs a command in the daemons' pods of
// nodes; of all of them if none is named.
func Run(ctx context.Context, kubeconfig string, nodes, command []string, patience time.Duration) ([]Answer, error) {
	c, err := person.New(kubeconfig)
	if err != nil {
		return nil, err
	}
	pods, err := Pods(ctx, c, "")
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		nodes = slices.Sorted(maps.Keys(pods))
	}
	return Ask(ctx, c, pods, nodes, command, patience), nil
}

// Ask runs command on every node of the list, which takes each no longer than
// patience. Answers are in the list's order. What a command printed before it
// ended with an error is in its answer.
func Ask(ctx context.Context, c Client, pods map[string]Pod, nodes, command []string, patience time.Duration) []Answer {
	answers := make([]Answer, len(nodes))
	var all sync.WaitGroup
	free := make(chan struct{}, atOnce)
	for i, node := range nodes {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			answers[i] = one(ctx, c, pods, node, command, patience)
		})
	}
	all.Wait()
	return answers
}

func one(ctx context.Context, c Client, pods map[string]Pod, node string, command []string, patience time.Duration) Answer {
	pod, found := pods[node]
	if !found {
		return Answer{Node: node, Err: errors.New("no poplind pod on this node")}
	}
	if pod.Status.Phase != "Running" {
		return Answer{Node: node, Err: fmt.Errorf("its pod %s is %s", pod.Meta.Name, strings.ToLower(pod.Status.Phase))}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	out, err := c.Run(ctx, pod.Meta.Namespace, pod.Meta.Name, container, command)
	if err != nil && ctx.Err() != nil {
		err = fmt.Errorf("no answer within %s: is the node down, or its kubelet?", patience)
	}
	return Answer{Node: node, Out: out, Err: err}
}
