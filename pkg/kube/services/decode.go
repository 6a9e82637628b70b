package services

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unique"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster/service"
)

// Objects come as protobuf and are read field by field into what stays of
// them: a start on a large cluster reads a hundred megabytes, most of which
// (managed fields, selectors, references) nobody needs. The numbers of the
// fields are the API's, which never change: generated.proto of k8s.io/api and
// k8s.io/apimachinery.

const (
	serviceName = "kubernetes.io/service-name"
	proxyName   = "service.kubernetes.io/service-proxy-name"
	changedAt   = "endpoints.kubernetes.io/last-change-trigger-time"
)

// kept are the labels and annotations that anybody asks for.
var kept = map[string]bool{serviceName: true, proxyName: true, changedAt: true, metav1.InitialEventsAnnotationKey: true}

// field is one of a message: number is set for varints, text for the rest.
type field struct {
	id     protowire.Number
	text   []byte
	number uint64
}

// flag is a boolean, short a number that has to fit a port.
func (f field) flag() bool { return f.number != 0 }

func (f field) short() uint16 {
	if f.number > 65535 {
		return 0 // no port, as 0 is none
	}
	return uint16(f.number)
}

// each calls do for every field of a message.
func each(b []byte, do func(field) error) error {
	for len(b) > 0 {
		id, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		f := field{id: id}
		switch kind {
		case protowire.VarintType:
			f.number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(id, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// Unmarshal reads a list.
func (l *list[T, P]) Unmarshal(b []byte) error {
	return each(b, func(f field) error {
		switch f.id {
		case 1:
			return l.ListMeta.Unmarshal(f.text)
		case 2:
			l.Items = append(l.Items, *new(T))
			return P(&l.Items[len(l.Items)-1]).Unmarshal(f.text)
		}
		return nil
	})
}

func (m *meta) read(b []byte) error {
	return each(b, func(f field) error {
		switch f.id {
		case 1:
			m.Name = string(f.text)
		case 3:
			m.Namespace = name(f.text)
		case 5:
			m.UID = types.UID(f.text)
		case 6:
			m.ResourceVersion = string(f.text)
		case 8:
			return m.CreationTimestamp.Unmarshal(f.text)
		case 11:
			return pair(f.text, &m.Labels)
		case 12:
			return pair(f.text, &m.Annotations)
		}
		return nil
	})
}

// pair adds one entry of a map, if anybody asks for it.
func pair(b []byte, to *map[string]string) error {
	var k, v []byte
	if err := each(b, func(f field) error {
		switch f.id {
		case 1:
			k = f.text
		case 2:
			v = f.text
		}
		return nil
	}); err != nil || !kept[string(k)] {
		return err
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[string(k)] = string(v)
	return nil
}

// Unmarshal reads a Service.
func (o *serviceObject) Unmarshal(b []byte) error {
	s := &o.value
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			return o.read(f.text)
		case 2:
			return readSpec(f.text, s)
		case 3:
			return each(f.text, func(f field) error {
				if f.id != 1 {
					return nil
				}
				return each(f.text, func(f field) error {
					if f.id != 1 {
						return nil
					}
					return readIngress(f.text, s)
				})
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read Service: %w", err)
	}
	s.Key, s.Created, s.ProxyName = o.key(), o.CreationTimestamp.Time, o.Labels[proxyName]
	if _, labelled := o.Labels[proxyName]; labelled && s.ProxyName == "" {
		s.ProxyName = "none" // any value counts, also an empty one
	}
	return nil
}

func readSpec(b []byte, s *service.Service) error {
	var affinity bool
	var timeout time.Duration
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			p := service.Port{Protocol: service.TCP}
			s.Ports = append(s.Ports, p)
			return readPort(f.text, &s.Ports[len(s.Ports)-1])
		case 4:
			s.Type = service.Type(name(f.text))
		case 5:
			s.ExternalIPs = append(s.ExternalIPs, address(f.text))
		case 7:
			affinity = string(f.text) == "ClientIP"
		case 9:
			p, _ := netip.ParsePrefix(strings.TrimSpace(string(f.text))) // invalid: for the compiler to say
			s.SourceRanges = append(s.SourceRanges, p)
		case 11:
			s.ExternalLocal = string(f.text) == "Local"
		case 12:
			s.HealthCheckNodePort = f.short()
		case 14:
			return each(f.text, func(f field) error {
				return each(f.text, func(f field) error {
					if f.id == 1 {
						timeout = time.Duration(f.number) * time.Second
					}
					return nil
				})
			})
		case 18:
			if string(f.text) != "None" {
				s.ClusterIPs = append(s.ClusterIPs, address(f.text))
			}
		case 22:
			s.InternalLocal = string(f.text) == "Local"
		}
		return nil
	})
	if affinity {
		s.Affinity = timeout
	}
	return err
}

func readPort(b []byte, p *service.Port) error {
	return each(b, func(f field) error {
		switch f.id {
		case 1:
			p.Name = name(f.text)
		case 2:
			p.Protocol = protocol(f.text)
		case 3:
			p.Port = f.short()
		case 5:
			p.NodePort = f.short()
		}
		return nil
	})
}

func readIngress(b []byte, s *service.Service) error {
	var in service.Ingress
	ip := false
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			in.Addr, ip = address(f.text), len(f.text) > 0
		case 3:
			in.Proxy = string(f.text) == "Proxy"
		}
		return nil
	})
	if ip {
		s.Ingress = append(s.Ingress, in)
	}
	return err
}

// Unmarshal reads an EndpointSlice.
func (o *sliceObject) Unmarshal(b []byte) error {
	s := &o.value
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			return o.read(f.text)
		case 2:
			e := service.Endpoint{Ready: true, Serving: true}
			s.Endpoints = append(s.Endpoints, e)
			return readEndpoint(f.text, &s.Endpoints[len(s.Endpoints)-1])
		case 3:
			return readSlicePort(f.text, s)
		case 4:
			s.Family = map[string]int{"IPv4": 4, "IPv6": 6}[string(f.text)]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read EndpointSlice: %w", err)
	}
	s.Key, s.Service = o.key(), o.Labels[serviceName]
	// Without the time, or with one that is none, nothing is measured.
	o.trigger, _ = time.Parse(time.RFC3339Nano, o.Annotations[changedAt])
	return nil
}

// readSlicePort leaves a port without a name out, as the API says that it
// means "all ports", which no Service port does.
func readSlicePort(b []byte, s *service.Slice) error {
	p, named := service.SlicePort{Protocol: service.TCP}, false
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			p.Name, named = name(f.text), true
		case 2:
			p.Protocol = protocol(f.text)
		case 3:
			p.Port = f.short()
		}
		return nil
	})
	if named {
		s.Ports = append(s.Ports, p)
	}
	return err
}

func readEndpoint(b []byte, e *service.Endpoint) error {
	first := true
	return each(b, func(f field) error {
		switch f.id {
		case 1:
			if first {
				e.Addr, first = address(f.text), false
			}
		case 2:
			return each(f.text, func(f field) error {
				switch f.id {
				case 1:
					e.Ready = f.flag()
				case 2:
					e.Serving = f.flag()
				case 3:
					e.Terminating = f.flag()
				}
				return nil
			})
		case 6:
			e.Node = name(f.text)
		case 8:
			return readHints(f.text, e)
		}
		return nil
	})
}

func readHints(b []byte, e *service.Endpoint) error {
	return each(b, func(hint field) error {
		return each(hint.text, func(f field) error {
			switch {
			case f.id == 1 && hint.id == 1:
				e.ForZones = append(e.ForZones, name(f.text))
			case f.id == 1 && hint.id == 2:
				e.ForNodes = append(e.ForNodes, name(f.text))
			}
			return nil
		})
	})
}

// Unmarshal reads a ServiceCIDR.
func (o *rangeObject) Unmarshal(b []byte) error {
	err := each(b, func(f field) error {
		switch f.id {
		case 1:
			return o.read(f.text)
		case 2:
			return each(f.text, func(f field) error {
				if f.id != 1 {
					return nil
				}
				if p, err := netip.ParsePrefix(string(f.text)); err == nil {
					o.value = append(o.value, p.Masked())
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read ServiceCIDR: %w", err)
	}
	return nil
}

// name keeps one copy of what many objects say, such as the name of a node.
func name(b []byte) string { return unique.Make(string(b)).Value() }

// address is invalid for text that is no address: the compiler names it.
func address(b []byte) netip.Addr {
	a, _ := netip.ParseAddr(string(b))
	return a
}

func protocol(b []byte) service.Protocol {
	switch string(b) {
	case "TCP", "":
		return service.TCP
	case "UDP":
		return service.UDP
	case "SCTP":
		return service.SCTP
	}
	return 0
}
