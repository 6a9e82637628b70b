package ingress

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/kube/follow"
)

// store passes the objects of one collection on. It keeps no more of them
// than it takes to notice that one changed or is gone.
type store struct {
	client    *Client
	api       rest.Interface
	resource  string
	namespace string
	// only is the name of the one object that is watched; empty is all.
	only string
	tell func(cluster.ObjectName, *object) error

	known    map[cluster.ObjectName]known
	complete bool
	failure  string
}

// known is what is kept of an object.
type known struct {
	uid     types.UID
	version string
	labels  map[string]string // of EndpointSlices
}

func newStore(c *Client, api rest.Interface, resource, namespace string, tell func(cluster.ObjectName, *object) error) *store {
	return &store{client: c, api: api, resource: resource, namespace: namespace, tell: tell, known: map[cluster.ObjectName]known{}}
}

func newSecretStore(c *Client, n cluster.ObjectName) *store {
	s := newStore(c, c.core, "secrets", n.Namespace, c.tellSecret)
	s.only = n.Name
	return s
}

// watch tells of everything until ctx ends.
func (s *store) watch(ctx context.Context) {
	what := follow.Collection{
		API: s.api, Resource: s.resource, Namespace: s.namespace,
		One: &object{}, Many: &objectList{}, Requested: s.report,
	}
	if s.only != "" {
		what.Fields, what.List = "metadata.name="+s.only, s.get
	}
	what.Run(ctx, s)
}

// get is a list of the one object: whoever may not list Secrets may still read
// those he knows.
func (s *store) get(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
	var o object
	list := &objectList{}
	err := s.api.Get().Namespace(s.namespace).Resource(s.resource).Name(s.only).Do(ctx).Into(&o)
	switch {
	case apierrors.IsNotFound(err):
		// A watch from "0" begins with what there is by then.
		list.ResourceVersion = "0"
		return list, nil
	case err != nil:
		return nil, err
	}
	list.ResourceVersion, list.Items = o.ResourceVersion, []object{o}
	return list, nil
}

// report logs changes only: an API server that is away for an hour is one
// line, not a thousand.
func (s *store) report(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	text := ""
	if err != nil {
		text = err.Error()
	}
	log := s.client.log.With("resource", s.resource, "namespace", s.namespace, "name", s.only)
	switch {
	case text != "" && s.failure == "":
		log.Warn("cannot read from the API server; routes stay as they are", "error", err)
	case text == "" && s.failure != "":
		log.Info("reading from the API server again")
	}
	s.failure = text
}

func nameOf(o *object) cluster.ObjectName {
	return cluster.ObjectName{Namespace: o.Namespace, Name: o.Name}
}

// Add and the methods below implement cache.ReflectorStore; the reflector
// calls them from one goroutine.
func (s *store) Add(obj any) error { s.put(obj.(*object)); return nil }

// Update is Add.
func (s *store) Update(obj any) error { return s.Add(obj) }

func (s *store) put(o *object) {
	n := nameOf(o)
	k := known{o.UID, o.ResourceVersion, o.Labels}
	if old, found := s.known[n]; found && old.uid == k.uid && old.version == k.version {
		return
	} else if found && s.resource == "endpointslices" && old.labels[serviceLabel] != k.labels[serviceLabel] {
		s.drop(n)
	}
	if s.resource != "endpointslices" {
		k.labels = nil
	}
	s.known[n] = k
	if err := s.tell(n, o); err != nil {
		s.client.log.Warn("skip an object that is not understood", "resource", s.resource, "name", n.String(), "error", err)
		s.gone(n, k)
	}
}

// Delete forgets an object.
func (s *store) Delete(obj any) error {
	if o, ok := obj.(*object); ok {
		s.drop(nameOf(o))
	}
	return nil
}

func (s *store) drop(n cluster.ObjectName) {
	if k, found := s.known[n]; found {
		delete(s.known, n)
		s.gone(n, k)
	}
}

func (s *store) gone(n cluster.ObjectName, k known) {
	var o *object
	if s.resource == "endpointslices" {
		o = &object{ObjectMeta: metav1.ObjectMeta{Labels: k.labels}}
	}
	if err := s.tell(n, o); err != nil {
		s.client.log.Warn("cannot take back an object", "resource", s.resource, "name", n.String(), "error", err)
	}
}

// Replace starts over from a complete list.
func (s *store) Replace(list []any, _ string) error {
	now := make(map[cluster.ObjectName]bool, len(list))
	for _, obj := range list {
		o := obj.(*object)
		now[nameOf(o)] = true
		s.put(o)
	}
	for n := range s.known {
		if !now[n] {
			s.drop(n)
		}
	}
	if s.only != "" && len(list) == 0 {
		n := cluster.ObjectName{Namespace: s.namespace, Name: s.only}
		return s.tell(n, nil)
	}
	if !s.complete && s.only == "" {
		s.complete = true
		s.client.synced()
	}
	return nil
}

// Resync has nothing to do: nobody queues behind this store.
func (s *store) Resync() error { return nil }
