package services

import (
	"fmt"
	"net/netip"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/decode"
)

const (
	// serviceName is a label of an EndpointSlice: the Service that it belongs to.
	serviceName = "kubernetes.io/service-name"
	// proxyName is a label of a Service that another program serves, whatever
	// its value: Poplin leaves it alone.
	proxyName = "service.kubernetes.io/service-proxy-name"
	// headless is a label of an EndpointSlice of a Service without an address: it
	// is not asked for.
	headless = "service.kubernetes.io/headless"
	// changedAt is an annotation of an EndpointSlice: when what it tells changed,
	// for the metric `poplin_network_programming_duration_seconds`.
	changedAt = "endpoints.kubernetes.io/last-change-trigger-time"
)

// kept are the labels and annotations that anybody asks for.
func kept(name string) bool { return name == serviceName || name == proxyName || name == changedAt }

// Unmarshal reads a Service.
func (o *serviceObject) Unmarshal(b []byte) error {
	s := &o.value
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, kept, kept)
		case 2:
			return readSpec(f.Text, s)
		case 3:
			return decode.Each(f.Text, func(f decode.Field) error {
				if f.ID != 1 {
					return nil
				}
				return decode.Each(f.Text, func(f decode.Field) error {
					if f.ID != 1 {
						return nil
					}
					return readIngress(f.Text, s)
				})
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read Service: %w", err)
	}
	s.Key, s.Created, s.ProxyName = o.Key(), o.CreationTimestamp.Time, o.Labels[proxyName]
	if _, labelled := o.Labels[proxyName]; labelled && s.ProxyName == "" {
		s.ProxyName = "none" // any value counts, also an empty one
	}
	return nil
}

func readSpec(b []byte, s *service.Service) error {
	var affinity bool
	var timeout time.Duration
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			p := service.Port{Protocol: service.TCP}
			s.Ports = append(s.Ports, p)
			return readPort(f.Text, &s.Ports[len(s.Ports)-1])
		case 4:
			s.Type = service.Type(f.Name())
		case 5:
			s.ExternalIPs = append(s.ExternalIPs, f.Address())
		case 7:
			affinity = string(f.Text) == "ClientIP"
		case 9:
			p, _ := netip.ParsePrefix(strings.TrimSpace(string(f.Text))) // invalid: for the compiler to say
			s.SourceRanges = append(s.SourceRanges, p)
		case 11:
			s.ExternalLocal = string(f.Text) == "Local"
		case 12:
			s.HealthCheckNodePort = f.Port()
		case 14:
			return decode.Each(f.Text, func(f decode.Field) error {
				return decode.Each(f.Text, func(f decode.Field) error {
					if f.ID == 1 {
						timeout = time.Duration(f.Number) * time.Second
					}
					return nil
				})
			})
		case 18:
			if string(f.Text) != "None" {
				s.ClusterIPs = append(s.ClusterIPs, f.Address())
			}
		case 22:
			s.InternalLocal = string(f.Text) == "Local"
		}
		return nil
	})
	if affinity {
		s.Affinity = timeout
	}
	return err
}

func readPort(b []byte, p *service.Port) error {
	return decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			p.Name = f.Name()
		case 2:
			p.Protocol = f.Protocol()
		case 3:
			p.Port = f.Port()
		case 5:
			p.NodePort = f.Port()
		}
		return nil
	})
}

func readIngress(b []byte, s *service.Service) error {
	var in service.Ingress
	ip := false
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			in.Addr, ip = f.Address(), len(f.Text) > 0
		case 3:
			in.Proxy = string(f.Text) == "Proxy"
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
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, kept, kept)
		case 2:
			e := service.Endpoint{Ready: true, Serving: true}
			s.Endpoints = append(s.Endpoints, e)
			return readEndpoint(f.Text, &s.Endpoints[len(s.Endpoints)-1])
		case 3:
			return readSlicePort(f.Text, s)
		case 4:
			s.Family = map[string]int{"IPv4": 4, "IPv6": 6}[string(f.Text)]
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read EndpointSlice: %w", err)
	}
	s.Key, s.Service = o.Key(), o.Labels[serviceName]
	// Without the time, or with one that is none, nothing is measured.
	o.trigger, _ = time.Parse(time.RFC3339Nano, o.Annotations[changedAt])
	return nil
}

// readSlicePort leaves a port without a name out, as the API says that it
// means "all ports", which no Service port does.
func readSlicePort(b []byte, s *service.Slice) error {
	p, named := service.SlicePort{Protocol: service.TCP}, false
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			p.Name, named = f.Name(), true
		case 2:
			p.Protocol = f.Protocol()
		case 3:
			p.Port = f.Port()
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
	return decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			if first {
				e.Addr, first = f.Address(), false
			}
		case 2:
			return decode.Each(f.Text, func(f decode.Field) error {
				switch f.ID {
				case 1:
					e.Ready = f.Flag()
				case 2:
					e.Serving = f.Flag()
				case 3:
					e.Terminating = f.Flag()
				}
				return nil
			})
		case 6:
			e.Node = f.Name()
		case 8:
			return readHints(f.Text, e)
		}
		return nil
	})
}

func readHints(b []byte, e *service.Endpoint) error {
	return decode.Each(b, func(hint decode.Field) error {
		return decode.Each(hint.Text, func(f decode.Field) error {
			switch {
			case f.ID == 1 && hint.ID == 1:
				e.ForZones = append(e.ForZones, f.Name())
			case f.ID == 1 && hint.ID == 2:
				e.ForNodes = append(e.ForNodes, f.Name())
			}
			return nil
		})
	})
}

// Unmarshal reads a ServiceCIDR.
func (o *rangeObject) Unmarshal(b []byte) error {
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, kept, kept)
		case 2:
			return decode.Each(f.Text, func(f decode.Field) error {
				if f.ID != 1 {
					return nil
				}
				if p, err := netip.ParsePrefix(string(f.Text)); err == nil {
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
