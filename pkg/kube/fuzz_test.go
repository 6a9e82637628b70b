package kube

import (
	"encoding/json"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
)

// FuzzNodeNetwork: what any node may write is refused, or is a value that can
// be programmed and comes out as it went in.
func FuzzNodeNetwork(f *testing.F) {
	f.Add(`{"metadata":{"name":"worker-1","ownerReferences":[{"kind":"Node","name":"worker-1","uid":"7"}]},"spec":{"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"],"vtep":{"address":"172.30.0.11","mac":"02:00:00:00:00:01"},"mtu":1450,"direct":["172.30.0.11/24"]}}`)
	f.Add(`{"metadata":{"name":"w"},"spec":{"podCIDRs":["::ffff:10.0.0.0/104"],"vtep":{"address":"fe80::1%eth0","mac":"ff:ff:ff:ff:ff:ff"},"mtu":-1}}`)
	f.Add(`{"spec":[]}`)
	f.Fuzz(func(t *testing.T, text string) {
		var o NodeNetwork
		if json.Unmarshal([]byte(text), &o) != nil || len(validation.IsDNS1123Subdomain(o.Name)) > 0 {
			return // the API server would not have it
		}
		n, err := toNetwork(&o)
		if err != nil {
			return
		}
		if err := n.Validate(); err != nil {
			t.Fatalf("accepted %+v: %v", n, err)
		}
		if o.Spec, err = fromNode(n.Node); err != nil {
			t.Fatal(err)
		}
		if again, err := toNetwork(&o); err != nil || !again.Equal(n.Node) {
			t.Fatalf("%+v becomes %+v, %v", n, again, err)
		}
		copied := o.DeepCopyObject().(*NodeNetwork)
		if again, err := toNetwork(copied); err != nil || !again.Equal(n.Node) {
			t.Fatalf("the copy of %+v is %+v, %v", n, again, err)
		}
	})
}

// FuzzNode: this node's own Node, which kubelet and cloud controllers write.
func FuzzNode(f *testing.F) {
	f.Add(`{"metadata":{"name":"worker-1","uid":"7"},"spec":{"podCIDRs":["10.244.1.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"172.30.0.11"}],"conditions":[{"type":"NetworkUnavailable","status":"True"}]}}`)
	f.Add(`{"spec":{"podCIDRs":["10.244.1.0/24","10.244.2.0/24"]},"status":{"addresses":[{"type":"InternalIP","address":"::ffff:1.2.3.4"}]}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var o node
		if json.Unmarshal([]byte(text), &o) != nil {
			return
		}
		s, err := toSelf(&o)
		if err == nil && (len(s.PodCIDRs) > 2 || len(s.Addresses) > 2) {
			t.Fatalf("accepted %+v", s)
		}
	})
}
