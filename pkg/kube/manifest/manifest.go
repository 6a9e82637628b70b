// Package manifest reads what policies are about from YAML as kubectl takes
// it, without an API server. Inputs are texts; outputs are values of
// pkg/cluster/policy, read by the code that reads the API's, and the documents
// of kinds that it does not know. It refuses fields that the API does not
// have, each with the file and the line of its document.
package manifest

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"

	yamlv3 "go.yaml.in/yaml/v3"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube/policies"
)

// Document is one of a stream.
type Document struct {
	File             string
	APIVersion, Kind string
	*yamlv3.Node
}

// Errorf is an error about the document, or about a part of it.
func (d Document) Errorf(at *yamlv3.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %w", d.File, at.Line, fmt.Errorf(format, args...))
}

// Read adds the objects of one text; it returns the documents of other kinds.
func Read(file string, text []byte, o *policy.Objects) (others []Document, err error) {
	list, err := split(file, text)
	if err != nil {
		return nil, err
	}
	for _, d := range list {
		known, err := d.add(o)
		if err != nil {
			return nil, d.Errorf(d.Node, "read %s: %w", d.Kind, err)
		}
		if !known {
			others = append(others, d)
		}
	}
	return others, nil
}

// split finds the documents, and those within Lists.
func split(file string, text []byte) (list []Document, err error) {
	decoder := yamlv3.NewDecoder(bytes.NewReader(text))
	for {
		var doc yamlv3.Node
		if err := decoder.Decode(&doc); errors.Is(err, io.EOF) {
			return list, nil
		} else if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		if len(doc.Content) != 1 || doc.Content[0].Tag == "!!null" {
			continue // empty
		}
		if list, err = appendDocument(list, file, doc.Content[0]); err != nil {
			return nil, err
		}
	}
}

func appendDocument(list []Document, file string, n *yamlv3.Node) ([]Document, error) {
	var head struct {
		APIVersion string        `yaml:"apiVersion"`
		Kind       string        `yaml:"kind"`
		Items      []yamlv3.Node `yaml:"items"`
	}
	d := Document{File: file, Node: n}
	if err := n.Decode(&head); err != nil || head.Kind == "" {
		return nil, d.Errorf(n, "this is no object: it needs apiVersion and kind")
	}
	d.APIVersion, d.Kind = head.APIVersion, head.Kind
	if d.Kind != "List" {
		return append(list, d), nil
	}
	for i := range head.Items {
		var err error
		if list, err = appendDocument(list, file, &head.Items[i]); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// add reads a document of a known kind.
func (d Document) add(o *policy.Objects) (known bool, err error) {
	switch d.APIVersion + " " + d.Kind {
	case "v1 Namespace":
		var n corev1.Namespace
		if err := d.strict(&n); err != nil {
			return true, err
		}
		labels := map[string]string{corev1.LabelMetadataName: n.Name} // as the API server has it
		for k, v := range n.Labels {
			labels[k] = v
		}
		o.Namespaces = append(o.Namespaces, policy.Namespace{Name: n.Name, Labels: labels})
	case "v1 Node":
		var n corev1.Node
		if err := d.strict(&n); err != nil {
			return true, err
		}
		o.Nodes = append(o.Nodes, nodeOf(n))
	case "v1 Pod":
		var p corev1.Pod
		if err := d.strict(&p); err != nil {
			return true, err
		}
		return true, addPod(o, p)
	case "apps/v1 Deployment", "apps/v1 StatefulSet", "apps/v1 DaemonSet", "apps/v1 ReplicaSet", "batch/v1 Job":
		var w workload
		if err := d.decode(yaml.Unmarshal, &w); err != nil {
			return true, err
		}
		w.Spec.Template.Name, w.Spec.Template.Namespace = w.Name, w.Namespace
		return true, addPod(o, corev1.Pod{ObjectMeta: w.Spec.Template.ObjectMeta, Spec: w.Spec.Template.Spec})
	case "networking.k8s.io/v1 NetworkPolicy":
		var n networkingv1.NetworkPolicy
		if err := d.strict(&n); err != nil {
			return true, err
		}
		n.Namespace = namespace(n.Namespace)
		b, err := n.Marshal()
		if err != nil {
			return true, err
		}
		p, err := policies.DecodePolicy(b)
		o.Policies = append(o.Policies, p)
		return true, err
	case "policy.networking.k8s.io/v1alpha2 ClusterNetworkPolicy":
		var c clusterPolicy
		if err := d.decode(yaml.Unmarshal, &c); err != nil {
			return true, err
		}
		o.Cluster = append(o.Cluster, policies.DecodeClusterPolicy(c.Name, c.Spec))
	default:
		return false, nil
	}
	return true, nil
}

// clusterPolicy is read strictly where its parts are, field by field.
type clusterPolicy struct {
	metav1.ObjectMeta `json:"metadata"`
	Spec              json.RawMessage `json:"spec"`
}

// workload is what makes pods from a template; one of them is enough to ask.
type workload struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              struct {
		Template corev1.PodTemplateSpec `json:"template"`
	} `json:"spec"`
}

// namespace is kubectl's where a manifest names none.
func namespace(name string) string {
	if name == "" {
		return metav1.NamespaceDefault
	}
	return name
}

func (d Document) strict(into any) error { return d.decode(yaml.UnmarshalStrict, into) }

func (d Document) decode(unmarshal func([]byte, any, ...yaml.JSONOpt) error, into any) error {
	b, err := yamlv3.Marshal(d.Node)
	if err != nil {
		return err
	}
	return unmarshal(b, into)
}

func addPod(o *policy.Objects, p corev1.Pod) error {
	p.Namespace = namespace(p.Namespace)
	b, err := p.Marshal()
	if err != nil {
		return err
	}
	pod, seen, err := policies.DecodePod(b)
	if seen {
		o.Pods = append(o.Pods, pod)
	}
	return err
}

func nodeOf(n corev1.Node) policy.Node {
	out := policy.Node{Name: n.Name, Labels: n.Labels}
	for _, a := range n.Status.Addresses {
		if addr, err := netip.ParseAddr(a.Address); err == nil {
			out.Addresses = append(out.Addresses, addr)
		}
	}
	return out
}
