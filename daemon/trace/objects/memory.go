package objects

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/kube/person"
)

// ofService is the label of a slice that says whose it is.
const ofService = "kubernetes.io/service-name"

// memory is what a node knows.
type memory struct {
	services []object.Service
	slices   map[service.Key][]object.Slice
	pods     []object.Pod
}

// Remember reads from what a node said of the cluster, and of its own pods.
func Remember(f facts.Node) *Reader {
	m := &memory{slices: map[service.Key][]object.Slice{}}
	for _, s := range f.Cluster.Services {
		m.services = append(m.services, toService(s))
	}
	for _, s := range f.Cluster.Slices {
		k := service.Key{Namespace: s.Namespace, Name: s.Service}
		m.slices[k] = append(m.slices[k], toSlice(s))
	}
	for _, p := range f.Cluster.Policy.Pods {
		m.pods = append(m.pods, toPod(p))
	}
	for _, p := range f.Pods { // that the runtime has attached
		namespace, name, _ := strings.Cut(p.Name, "/")
		k := policy.Key{Namespace: namespace, Name: name}
		if _, err := m.pod(k); err != nil && len(p.Addresses) > 0 { // its loopback has none
			m.pods = append(m.pods, toPod(policy.Pod{Key: k, UID: p.Container, Node: f.Name, Addresses: p.Addresses}))
		}
	}
	for _, s := range f.Cluster.Slices {
		for _, e := range s.Endpoints {
			if n := NodeFor(f.Cluster.Nodes, e.Addr); n != "" && len(m.those(has(e.Addr))) == 0 {
				m.pods = append(m.pods, Stranger(e.Addr, n))
			}
		}
	}
	if f.Daemon != nil {
		m.hostPorts(f.Daemon.HostPorts)
	}
	return &Reader{known: m}
}

// Stranger is a pod of which nothing is known but where it is.
func Stranger(a netip.Addr, node string) object.Pod {
	return toPod(policy.Pod{Key: policy.Key{Namespace: "unknown", Name: a.String()}, Node: node, Addresses: []netip.Addr{a}})
}

// NodeFor is the node that gives an address to its pods; empty if none does.
func NodeFor(nodes []cluster.Node, a netip.Addr) string {
	for _, n := range nodes {
		if slices.ContainsFunc(n.PodCIDRs, func(p netip.Prefix) bool { return p.Contains(a) }) {
			return n.Name
		}
	}
	return ""
}

func has(a netip.Addr) func(object.Pod) bool {
	return func(p object.Pod) bool { return slices.Contains(p.Addresses(), a) }
}

func (m *memory) service(k service.Key) (s object.Service, err error) {
	i := slices.IndexFunc(m.services, func(s object.Service) bool { return s.Key() == k })
	switch {
	case i < 0:
		return s, fmt.Errorf("Service %s: %w", k, person.ErrAbsent)
	case m.services[i].Spec.Type == string(service.ExternalName):
		return s, fmt.Errorf("Service %s stands for another name, which only the API server knows", k)
	}
	return m.services[i], nil
}

func (m *memory) pod(k service.Key) (object.Pod, error) {
	i := slices.IndexFunc(m.pods, func(p object.Pod) bool { return p.Key() == k })
	if i < 0 {
		return object.Pod{}, fmt.Errorf("pod %s: %w", k, person.ErrAbsent)
	}
	return m.pods[i], nil
}

func (m *memory) those(which func(object.Pod) bool) (list []object.Pod) {
	for _, p := range m.pods {
		if which(p) {
			list = append(list, p)
		}
	}
	return list
}

// hostPorts are in pods' specifications, and in files on their node.
func (m *memory) hostPorts(list []facts.HostPort) {
	for _, h := range list {
		for i := range m.pods {
			if p := &m.pods[i]; p.String() == h.Pod {
				c := object.Container{}
				c.Ports = append(c.Ports, object.ContainerPort{Port: h.To.Port(), HostPort: h.Port, Protocol: strings.ToUpper(h.Proto.String())})
				p.Spec.Containers = append(p.Spec.Containers, c)
			}
		}
	}
}

func ips(addrs []netip.Addr) (list []object.IP) {
	for _, a := range addrs {
		list = append(list, object.IP{IP: a.String()})
	}
	return list
}

func texts(addrs []netip.Addr) (list []string) {
	for _, a := range addrs {
		list = append(list, a.String())
	}
	return list
}

func toPod(p policy.Pod) object.Pod {
	o := object.Pod{Meta: object.Meta{Namespace: p.Namespace, Name: p.Name, UID: p.UID, Labels: p.Labels}}
	o.Spec.NodeName, o.Status.PodIPs = p.Node, ips(p.Addresses)
	c := object.Container{}
	for _, x := range p.Ports {
		c.Ports = append(c.Ports, object.ContainerPort{Name: x.Name, Port: x.Port, Protocol: strings.ToUpper(x.Protocol.String())})
	}
	o.Spec.Containers = append(o.Spec.Containers, c)
	return o
}

func traffic(local bool) string {
	if local {
		return "Local"
	}
	return "Cluster"
}

func toService(s service.Service) object.Service {
	o := object.Service{Meta: object.Meta{Namespace: s.Namespace, Name: s.Name}}
	o.Spec.Type = cmp.Or(string(s.Type), string(service.ClusterIP))
	o.Spec.ClusterIPs, o.Spec.ExternalIPs = texts(s.ClusterIPs), texts(s.ExternalIPs)
	o.Spec.Internal, o.Spec.External = traffic(s.InternalLocal), traffic(s.ExternalLocal)
	for _, p := range s.Ports {
		o.Spec.Ports = append(o.Spec.Ports, object.ServicePort{Name: p.Name, Protocol: strings.ToUpper(p.Protocol.String()), Port: p.Port, NodePort: p.NodePort})
	}
	for _, i := range s.Ingress {
		o.Status.LoadBalancer.Ingress = append(o.Status.LoadBalancer.Ingress, object.IP{IP: i.Addr.String()})
	}
	return o
}

func toSlice(s service.Slice) object.Slice {
	o := object.Slice{Meta: object.Meta{Namespace: s.Namespace, Name: s.Name, Labels: map[string]string{ofService: s.Service}}}
	for _, p := range s.Ports {
		o.Ports = append(o.Ports, object.SlicePort{Name: p.Name, Protocol: strings.ToUpper(p.Protocol.String()), Port: p.Port})
	}
	for _, e := range s.Endpoints {
		x := object.Endpoint{Addresses: texts([]netip.Addr{e.Addr}), Node: e.Node}
		x.Conditions.Ready, x.Conditions.Serving, x.Conditions.Terminating = &e.Ready, &e.Serving, &e.Terminating
		o.Endpoints = append(o.Endpoints, x)
	}
	return o
}
