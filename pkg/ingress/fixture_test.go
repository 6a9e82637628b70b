package ingress

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

var now = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func objectName(s string) cluster.ObjectName {
	ns, name, found := strings.Cut(s, "/")
	if !found {
		ns, name = "default", s
	}
	return cluster.ObjectName{Namespace: ns, Name: name}
}

// ing makes an Ingress from lines:
//
//	host a.example.com          the host of the paths below; none is any host
//	Prefix /foo web:80          a path; a port may be a name
//	default web:80              spec.defaultBackend
//	tls secret a.example.com    hosts may be left out; secret may be "-"
//	class poplin
//	age 3                       in hours; none is 1
//	key/name: value             an annotation
func ing(name string, lines ...string) *cluster.Ingress {
	i := &cluster.Ingress{ObjectName: objectName(name), UID: name, Class: "poplin", Annotations: map[string]string{}, Created: now.Add(-time.Hour)}
	for _, line := range lines {
		if key, value, ok := strings.Cut(line, ": "); ok && strings.Contains(key, "/") {
			i.Annotations[key] = value
			continue
		}
		f := strings.Fields(line)
		switch f[0] {
		case "host":
			host := ""
			if len(f) > 1 {
				host = f[1]
			}
			i.Rules = append(i.Rules, cluster.IngressRule{Host: host})
		case "default":
			b := backendOf(f[1])
			i.Default = &b
		case "tls":
			i.TLS = append(i.TLS, cluster.IngressTLS{Secret: strings.TrimPrefix(f[1], "-"), Hosts: f[2:]})
		case "class":
			i.Class = strings.Join(f[1:], "")
		case "age":
			h, _ := strconv.Atoi(f[1])
			i.Created = now.Add(-time.Duration(h) * time.Hour)
		default:
			if len(i.Rules) == 0 {
				i.Rules = []cluster.IngressRule{{}}
			}
			r := &i.Rules[len(i.Rules)-1]
			r.Paths = append(r.Paths, cluster.IngressPath{Type: cluster.PathType(f[0]), Path: f[1], Backend: backendOf(f[2])})
		}
	}
	return i
}

func backendOf(s string) cluster.IngressBackend {
	if kind, ok := strings.CutPrefix(s, "resource:"); ok {
		return cluster.IngressBackend{Resource: kind}
	}
	name, port, _ := strings.Cut(s, ":")
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return cluster.IngressBackend{Service: name, PortName: port}
	}
	return cluster.IngressBackend{Service: name, Port: uint16(n)}
}

// world is a compiler with a class and Services web, api and shop of one
// ready endpoint each, in the namespaces default, blue and green.
func world(cfg Config, ingresses ...*cluster.Ingress) *Compiler {
	cfg.Controllers = append(cfg.Controllers, Controller)
	c := New(cfg)
	c.SetClass("poplin", &cluster.IngressClass{Name: "poplin", Controller: Controller})
	last := byte(0)
	for _, ns := range []string{"default", "blue", "green"} {
		for _, name := range []string{"web", "api", "shop"} {
			last++
			n := cluster.ObjectName{Namespace: ns, Name: name}
			c.SetService(n, service(n.String()))
			c.SetEndpoints(n, "1", endpoints(n.String(), netip.AddrFrom4([4]byte{10, 244, 1, last}).String()))
		}
	}
	for _, i := range ingresses {
		c.SetIngress(i.ObjectName, i)
	}
	return c
}

func service(name string) *cluster.Service {
	return &cluster.Service{ObjectName: objectName(name), Type: "ClusterIP", Ports: []cluster.ServicePort{{Name: "http", Port: 80}, {Name: "grpc", Port: 9000, AppProtocol: "kubernetes.io/h2c"}}}
}

func endpoints(name string, ready ...string) *cluster.EndpointSlice {
	n := objectName(name)
	s := &cluster.EndpointSlice{ObjectName: n, Service: n.Name, Ports: []cluster.EndpointPort{{Name: "http", Port: 8080}, {Name: "grpc", Port: 9090}}}
	for _, a := range ready {
		s.Endpoints = append(s.Endpoints, cluster.Endpoint{Addr: netip.MustParseAddr(a), Ready: true, Serving: true})
	}
	return s
}

// told says that the findings of an Ingress are as many as the parts, each
// with its part in reason or text.
func told(t *testing.T, r Result, name string, parts ...string) {
	t.Helper()
	list := r.Findings[objectName(name)]
	ok := len(list) == len(parts)
	for i := range parts {
		ok = ok && strings.Contains(list[i].Reason.String()+": "+list[i].Text, parts[i])
	}
	if !ok {
		t.Errorf("findings of %s:\n%+v\nwant %q", name, list, parts)
	}
}
