package follow

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// The reflector asks its store what to leave out of the objects of a list that
// comes in as a stream, all of which it holds.
func TestListsHoldNoManagers(t *testing.T) {
	var store cache.ReflectorStore = counted{cache.NewStore(cache.MetaNamespaceKeyFunc), func() {}}
	transforming, ok := store.(cache.TransformingStore)
	if !ok {
		t.Fatal("the reflector does not ask")
	}
	o := &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Name: "node-1", ResourceVersion: "7",
		ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "poplind", FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:spec":{}}`)}}},
	}}
	got, err := transforming.Transformer()(o)
	if err != nil || got != any(o) || o.ManagedFields != nil || o.Name != "node-1" || o.ResourceVersion != "7" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := transforming.Transformer()(7); got != any(7) || err != nil {
		t.Errorf("what is no object becomes %v, %v", got, err)
	}
}
