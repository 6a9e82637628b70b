// Package objects reads the API's objects that a trace is about: from the API
// server, or, while that is away, from what a node's daemon has read before. Inputs
// are names; outputs are values of pkg/cluster/object. It refuses to guess: of
// what the daemon never keeps (selectors, target ports, pods that use their node's
// network) nothing is said.
package objects

import (
	"context"
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/person"
)

// Reader finds objects.
type Reader struct {
	api *person.Client
	// known is nil while the API server answers.
	known *memory
}

// New reads from the API server.
func New(api *person.Client) *Reader { return &Reader{api: api} }

// Away reports whether the API server is, so that what is not found may exist.
func (r *Reader) Away() bool { return r.known != nil }

// Service finds one; without it the error is person.ErrAbsent.
func (r *Reader) Service(ctx context.Context, k service.Key) (object.Service, error) {
	if r.known != nil {
		return r.known.service(k)
	}
	return person.Get[object.Service](ctx, r.api, person.Path("v1", k.Namespace, "services", k.Name))
}

// Services are all of them.
func (r *Reader) Services(ctx context.Context) ([]object.Service, error) {
	if r.known != nil {
		return r.known.services, nil
	}
	return person.List[object.Service](ctx, r.api, person.Path("v1", "", "services", ""), "", "")
}

// Slices are those of a Service.
func (r *Reader) Slices(ctx context.Context, k service.Key) ([]object.Slice, error) {
	if r.known != nil {
		return r.known.slices[k], nil
	}
	return person.List[object.Slice](ctx, r.api, person.Path("discovery.k8s.io/v1", k.Namespace, "endpointslices", ""), ofService+"="+k.Name, "")
}

// NameServer is the cluster's: the Service with the label that all have who
// install one. There may be none.
func (r *Reader) NameServer(ctx context.Context) (*object.Service, []object.Slice, error) {
	const namespace = "kube-system"
	var found []object.Service
	var err error
	if r.known != nil { // labels are not, and nearly all call it so
		var s object.Service
		if s, err = r.known.service(service.Key{Namespace: namespace, Name: "kube-dns"}); err == nil {
			found = append(found, s)
		}
	} else {
		found, err = person.List[object.Service](ctx, r.api, person.Path("v1", namespace, "services", ""), "k8s-app=kube-dns", "")
	}
	if len(found) == 0 {
		return nil, nil, err
	}
	list, err := r.Slices(ctx, found[0].Key())
	return &found[0], list, err
}

// Pod finds one; without it the error is person.ErrAbsent.
func (r *Reader) Pod(ctx context.Context, k service.Key) (object.Pod, error) {
	if r.known != nil {
		return r.known.pod(k)
	}
	return person.Get[object.Pod](ctx, r.api, person.Path("v1", k.Namespace, "pods", k.Name))
}

// PodsOf are those of a namespace; of all of them where that is empty.
func (r *Reader) PodsOf(ctx context.Context, namespace string) ([]object.Pod, error) {
	if r.known != nil {
		return r.known.those(func(p object.Pod) bool { return namespace == "" || p.Namespace == namespace }), nil
	}
	return person.List[object.Pod](ctx, r.api, person.Path("v1", namespace, "pods", ""), "", "")
}

// PodsAt are those with an address, the first of their own.
func (r *Reader) PodsAt(ctx context.Context, a netip.Addr) ([]object.Pod, error) {
	if r.known != nil {
		return r.known.those(has(a)), nil
	}
	return person.List[object.Pod](ctx, r.api, person.Path("v1", "", "pods", ""), "", "status.podIP="+a.String())
}

// PodsOn are those of a node.
func (r *Reader) PodsOn(ctx context.Context, node string) ([]object.Pod, error) {
	if r.known != nil {
		return r.known.those(func(p object.Pod) bool { return p.Spec.NodeName == node }), nil
	}
	return person.List[object.Pod](ctx, r.api, person.Path("v1", "", "pods", ""), "", "spec.nodeName="+node)
}
