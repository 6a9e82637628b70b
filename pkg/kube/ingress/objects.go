package ingress

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	coreV1       = schema.GroupVersion{Version: "v1"}
	networkingV1 = schema.GroupVersion{Group: "networking.k8s.io", Version: "v1"}
	discoveryV1  = schema.GroupVersion{Group: "discovery.k8s.io", Version: "v1"}
)

// scheme decodes every kind into the same type, whose content is read later
// and one by one: a single object of an unexpected shape would fail the list
// or watch it is in.
func scheme() *runtime.Scheme {
	s := runtime.NewScheme()
	for gv, kinds := range map[schema.GroupVersion][]string{
		coreV1: {"Service", "Secret"}, networkingV1: {"Ingress", "IngressClass"}, discoveryV1: {"EndpointSlice"},
	} {
		for _, kind := range kinds {
			s.AddKnownTypeWithName(gv.WithKind(kind), &object{})
			s.AddKnownTypeWithName(gv.WithKind(kind+"List"), &objectList{})
		}
		metav1.AddToGroupVersion(s, gv)
	}
	return s
}

// object is any object: its metadata, and its text for who knows its kind.
type object struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	text json.RawMessage
}

// UnmarshalJSON implements json.Unmarshaler.
func (o *object) UnmarshalJSON(b []byte) error {
	var head struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(b, &head); err != nil {
		return err
	}
	o.TypeMeta, o.ObjectMeta, o.text = head.TypeMeta, head.Metadata, slices.Clone(b)
	o.ManagedFields = nil
	return nil
}

// DeepCopyObject implements runtime.Object. Nobody writes to text.
func (o *object) DeepCopyObject() runtime.Object {
	return &object{o.TypeMeta, *o.ObjectMeta.DeepCopy(), o.text}
}

type objectList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata"`
	Items           []object `json:"items"`
}

// DeepCopyObject implements runtime.Object.
func (l *objectList) DeepCopyObject() runtime.Object {
	c := &objectList{l.TypeMeta, *l.ListMeta.DeepCopy(), make([]object, len(l.Items))}
	for i := range l.Items {
		c.Items[i] = *l.Items[i].DeepCopyObject().(*object)
	}
	return c
}

// The kinds, as far as they are read.

type classJSON struct {
	Spec struct {
		Controller string `json:"controller"`
	} `json:"spec"`
}

type ingressJSON struct {
	Spec struct {
		IngressClassName string       `json:"ingressClassName"`
		DefaultBackend   *backendJSON `json:"defaultBackend"`
		TLS              []struct {
			Hosts      []string `json:"hosts"`
			SecretName string   `json:"secretName"`
		} `json:"tls"`
		Rules []struct {
			Host string `json:"host"`
			HTTP struct {
				Paths []struct {
					Path     string      `json:"path"`
					PathType string      `json:"pathType"`
					Backend  backendJSON `json:"backend"`
				} `json:"paths"`
			} `json:"http"`
		} `json:"rules"`
	} `json:"spec"`
	Status statusJSON `json:"status"`
}

type backendJSON struct {
	Service *struct {
		Name string `json:"name"`
		Port struct {
			Name   string `json:"name"`
			Number uint16 `json:"number"`
		} `json:"port"`
	} `json:"service"`
	Resource *struct {
		Kind string `json:"kind"`
		Name string `json:"name"`
	} `json:"resource"`
}

type statusJSON struct {
	LoadBalancer struct {
		Ingress []addressJSON `json:"ingress"`
	} `json:"loadBalancer"`
}

type addressJSON struct {
	IP       string `json:"ip,omitempty"`
	Hostname string `json:"hostname,omitempty"`
}

type serviceJSON struct {
	Spec struct {
		Type         string   `json:"type"`
		ExternalName string   `json:"externalName"`
		ClusterIPs   []string `json:"clusterIPs"`
		ExternalIPs  []string `json:"externalIPs"`
		Ports        []struct {
			Name        string `json:"name"`
			Protocol    string `json:"protocol"`
			Port        uint16 `json:"port"`
			AppProtocol string `json:"appProtocol"`
		} `json:"ports"`
	} `json:"spec"`
	Status statusJSON `json:"status"`
}

type sliceJSON struct {
	AddressType string `json:"addressType"`
	Endpoints   []struct {
		Addresses  []string `json:"addresses"`
		Conditions struct {
			Ready   *bool `json:"ready"`
			Serving *bool `json:"serving"`
		} `json:"conditions"`
	} `json:"endpoints"`
	Ports []struct {
		Name     string `json:"name"`
		Protocol string `json:"protocol"`
		Port     uint16 `json:"port"`
	} `json:"ports"`
}

type secretJSON struct {
	Type string            `json:"type"`
	Data map[string][]byte `json:"data"`
}
