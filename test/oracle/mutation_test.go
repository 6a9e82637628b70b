package oracle_test

import (
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// lie is a compiler that gets one thing wrong: it is fed objects in which
// that thing is not so, while the oracle sees the true ones.
type lie struct {
	keeps   bool // deleted Services
	service func(*service.Service)
	slice   func(*service.Slice)
	each    func(*service.Endpoint)
}

func (l lie) aboutService(s service.Service) service.Service {
	if l.service != nil {
		s.Ports = slices.Clone(s.Ports)
		l.service(&s)
	}
	return s
}

func (l lie) aboutSlice(s service.Slice) service.Slice {
	if l.slice != nil {
		s.Ports = slices.Clone(s.Ports)
		l.slice(&s)
	}
	if l.each != nil {
		s.Endpoints = slices.Clone(s.Endpoints)
		for i := range s.Endpoints {
			l.each(&s.Endpoints[i])
		}
	}
	return s
}

// TestEveryLieIsFound: the random test would notice a compiler with any of
// these faults.
func TestEveryLieIsFound(t *testing.T) {
	for name, l := range map[string]lie{
		"deleted Services stay":             {keeps: true},
		"internal traffic policy ignored":   {service: func(s *service.Service) { s.InternalLocal = false }},
		"external traffic policy ignored":   {service: func(s *service.Service) { s.ExternalLocal = false }},
		"affinity ignored":                  {service: func(s *service.Service) { s.Affinity = 0 }},
		"source ranges ignored":             {service: func(s *service.Service) { s.SourceRanges = nil }},
		"ipMode ignored":                    {service: func(s *service.Service) { s.Ingress = honest(s.Ingress) }},
		"proxy name ignored":                {service: func(s *service.Service) { s.ProxyName = "" }},
		"node ports forgotten":              {service: func(s *service.Service) { forgetNodePorts(s) }},
		"one family only":                   {service: func(s *service.Service) { s.ClusterIPs = s.ClusterIPs[:min(1, len(s.ClusterIPs))] }},
		"unready endpoints used":            {each: func(e *service.Endpoint) { e.Ready = true }},
		"terminating endpoints never used":  {each: func(e *service.Endpoint) { e.Serving = e.Ready }},
		"zone hints ignored":                {each: func(e *service.Endpoint) { e.ForZones = nil }},
		"node hints ignored":                {each: func(e *service.Endpoint) { e.ForNodes = nil }},
		"nothing is local":                  {each: func(e *service.Endpoint) { e.Node = "" }},
		"protocols confused":                {slice: func(s *service.Slice) { confuse(s) }},
		"port names ignored":                {slice: func(s *service.Slice) { rename(s) }},
		"the younger Service has the front": {service: func(s *service.Service) { s.Created = time.Unix(-s.Created.Unix(), 0) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(*seed, l)
			for i := range 5000 {
				r.step()
				r.flush()
				for range 20 {
					if r.check(r.likely()) != nil {
						t.Logf("found after %d operations", i+1)
						return
					}
				}
			}
			t.Errorf("not found (-seed %d)", *seed)
		})
	}
}

func honest(list []service.Ingress) []service.Ingress {
	list = slices.Clone(list)
	for i := range list {
		list[i].Proxy = false
	}
	return list
}

func forgetNodePorts(s *service.Service) {
	for i := range s.Ports {
		s.Ports[i].NodePort = 0
	}
}

func confuse(s *service.Slice) {
	for i := range s.Ports {
		if s.Ports[i].Protocol == service.SCTP {
			s.Ports[i].Protocol = service.TCP
		}
	}
}

func rename(s *service.Slice) {
	for i := range s.Ports {
		s.Ports[i].Name = "p0"
	}
}
