package simulated

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"golang.org/x/sync/errgroup"
)

const (
	// PodsEach is how many pods a node has, as in Kubernetes' own tests of scale.
	PodsEach = 30
	// NodesPerSpace is how many nodes there are for a namespace, which has a
	// Service, two policies and its share of the pods.
	NodesPerSpace = 10
	// Behind is how many pods of a namespace its Service leads to: a full slice.
	Behind = 100
	// PoliciesEach is how many NetworkPolicies a namespace has.
	PoliciesEach = 2
	// atOnce is how many requests are on their way.
	atOnce = 16
)

// pod is one of the cluster's: those of other nodes come first, then the
// daemon's.
type pod int

// Spaces is how many namespaces with pods there are.
func (c *Cluster) Spaces() int { return max(1, c.size/NodesPerSpace) }

// Pods is how many there are.
func (c *Cluster) Pods() int { return PodsEach * (c.size + 1) }

func (c *Cluster) nodeOf(p pod) Node {
	if n := Node(int(p) / PodsEach); int(n) < c.size {
		return n
	}
	return Self
}

// space and turn are the pod's namespace, and which of its pods it is: those of
// a namespace are on nodes all over.
func (c *Cluster) space(p pod) int { return int(p) % c.Spaces() }
func (c *Cluster) turn(p pod) int  { return int(p) / c.Spaces() }

func space(n int) string { return fmt.Sprintf("ns-%03d", n) }

func (p pod) name() string { return fmt.Sprintf("pod-%07d", int(p)) }
func (p pod) uid() string  { return fmt.Sprintf("00000000-0000-4000-9000-%012d", int(p)) }

// addresses are a pod's; life counts how often it was replaced.
func (c *Cluster) addresses(p pod, life int) (string, string) {
	i := 100 + int(p)%PodsEach + PodsEach*(life%3)
	return c.nodeOf(p).pod4(i), c.nodeOf(p).pod6(fmt.Sprint(i))
}

// app is what selectors ask for.
func (c *Cluster) app(p pod) string {
	if c.turn(p) < Behind {
		return "front"
	}
	return "store"
}

// words are what differs between what is kept of two pods.
func (c *Cluster) words(p pod) []string {
	a4, a6 := c.addresses(p, 0)
	return []string{p.name(), p.uid(), space(c.space(p)), c.nodeOf(p).Name(), c.nodeOf(p).host(), a4, a6, c.app(p)}
}

// object is a pod as a controller makes it, on a node or on none.
func (c *Cluster) object(p pod, node string) object {
	probe := object{"httpGet": object{"path": "/healthz", "port": "http"}, "periodSeconds": 10}
	return object{
		"apiVersion": "v1", "kind": "Pod",
		"metadata": object{
			"name": p.name(), "namespace": space(c.space(p)),
			"labels": object{"app": c.app(p), "pod-template-hash": "5d59d67564", "version": "v1"},
			"ownerReferences": []object{{
				"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "app-5d59d67564", "uid": "11111111-1111-4111-8111-111111111111", "controller": true,
			}},
		},
		"spec": object{
			"nodeName": node,
			"containers": []object{{
				"name": "app", "image": "registry.example.com/team/app-00:v1.0", "readinessProbe": probe, "livenessProbe": probe,
				"ports":     []object{{"name": "http", "containerPort": 8080}},
				"env":       []object{{"name": "MODE", "value": "production"}, {"name": "LEVEL", "value": "info"}},
				"resources": object{"requests": object{"cpu": "100m", "memory": "128Mi"}, "limits": object{"memory": "256Mi"}},
			}},
			"tolerations": []object{
				{"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
				{"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
			},
		},
	}
}

// status is what the kubelet says of a pod that has, or has not yet, its
// addresses; ready, or not any more.
func (c *Cluster) status(p pod, life int, addressed, ready bool) object {
	var conditions []object
	for _, kind := range []string{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"} {
		is := ready || addressed && kind == "PodReadyToStartContainers" || kind == "Initialized" || kind == "PodScheduled"
		conditions = append(conditions, object{"type": kind, "status": map[bool]string{true: "True", false: "False"}[is], "lastTransitionTime": "2026-01-01T00:00:00Z"})
	}
	state, phase := object{"waiting": object{"reason": "ContainerCreating"}}, "Pending"
	if addressed {
		state, phase = object{"running": object{"startedAt": "2026-01-01T00:00:00Z"}}, "Running"
	}
	s := object{
		"phase": phase, "hostIP": c.nodeOf(p).host(), "hostIPs": []object{{"ip": c.nodeOf(p).host()}},
		"startTime": "2026-01-01T00:00:00Z", "qosClass": "Burstable", "conditions": conditions,
		"containerStatuses": []object{{
			"name": "app", "image": "registry.example.com/team/app-00:v1.0", "imageID": fmt.Sprintf("registry.example.com/team/app-00@sha256:%064d", 1),
			"containerID": fmt.Sprintf("containerd://%064d", 1), "ready": ready, "started": addressed, "restartCount": 0, "state": state,
		}},
	}
	if addressed {
		a4, a6 := c.addresses(p, life)
		s["podIP"], s["podIPs"] = a4, []object{{"ip": a4}, {"ip": a6}}
	}
	return s
}

func podsPath(n int) string { return "/api/v1/namespaces/" + space(n) + "/pods" }
func slicesPath(n int) string {
	return "/apis/discovery.k8s.io/v1/namespaces/" + space(n) + "/endpointslices"
}

// Crowd makes the namespaces with their Services and policies, and all pods.
func (c *Cluster) Crowd(ctx context.Context) error {
	g, inner := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for n := range c.Spaces() {
		g.Go(func() error { return c.namespace(inner, n) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	model := pod(0)
	o := c.object(model, Node(0).Name())
	o["status"] = c.status(model, 0, true, true)
	uid, err := c.create(ctx, podsPath(0), "kube-controller-manager", o)
	if err != nil {
		return err
	}
	const key = "/registry/pods/"
	kept, err := c.plane.Stored(ctx, key+space(0)+"/"+model.name())
	if err != nil {
		return err
	}
	pairs, err := copies(strings.ReplaceAll(string(kept), uid, model.uid()), c.words(model), c.Pods(), func(i int) (string, []string) {
		return key + space(c.space(pod(i))) + "/" + pod(i).name(), c.words(pod(i))
	})
	if err != nil {
		return err
	}
	return c.plane.Store(ctx, pairs)
}

func (c *Cluster) namespace(ctx context.Context, n int) error {
	for _, o := range []struct {
		path   string
		object object
	}{
		{"/api/v1/namespaces", object{"metadata": object{"name": space(n)}}},
		{"/api/v1/namespaces/" + space(n) + "/serviceaccounts", object{"metadata": object{"name": "default"}}},
		{"/api/v1/namespaces/" + space(n) + "/services", object{
			"metadata": object{"name": "front"},
			"spec":     object{"selector": object{"app": "front"}, "ports": []object{{"name": "http", "port": 80, "targetPort": "http"}}},
		}},
		{slicesPath(n), c.slice(n)},
		{policiesPath(n), policy("nothing-in", object{}, nil)},
		{policiesPath(n), policy("store", object{"matchLabels": object{"app": "store"}}, []object{{
			"from":  []object{{"podSelector": object{"matchLabels": object{"app": "front"}}}},
			"ports": []object{{"protocol": "TCP", "port": "http"}},
		}})},
	} {
		if err := c.plane.API.Send(ctx, http.MethodPost, o.path, o.object, nil); err != nil {
			return err
		}
	}
	return nil
}

func policiesPath(n int) string {
	return "/apis/networking.k8s.io/v1/namespaces/" + space(n) + "/networkpolicies"
}

func policy(name string, about object, rules []object) object {
	return object{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name},
		"spec": object{"podSelector": about, "policyTypes": []string{"Ingress"}, "ingress": rules},
	}
}

// slice is a namespace's, as the pods are now.
func (c *Cluster) slice(n int) object {
	var list []object
	for turn := range min(Behind, c.Pods()/c.Spaces()) {
		p := pod(turn*c.Spaces() + n)
		a4, _ := c.addresses(p, c.lives[p])
		list = append(list, object{
			"addresses": []string{a4}, "nodeName": c.nodeOf(p).Name(), "zone": "zone-1",
			"targetRef":  object{"kind": "Pod", "namespace": space(n), "name": p.name(), "uid": p.uid()},
			"conditions": object{"ready": !c.ending[p], "serving": true, "terminating": c.ending[p]},
		})
	}
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": object{"name": "front-abcde", "labels": object{
			"kubernetes.io/service-name": "front", "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
		}},
		"ports": []object{{"name": "http", "port": 8080, "protocol": "TCP"}}, "endpoints": list,
	}
}
