package policies

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/kube/decode"
)

// mirrored is an annotation of a Pod that is the API server's copy of a static
// one: the UID by which the runtime knows it.
const mirrored = "kubernetes.io/config.mirror"

// Any label may be asked for by a selector; annotations are asked for by none.
func every(string) bool { return true }

func none(string) bool { return false }

// Unmarshal reads a Pod.
func (o *podObject) Unmarshal(b []byte) error {
	p := &o.value
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, every, func(name string) bool { return name == mirrored })
		case 2:
			return decode.Each(f.Text, o.readSpec)
		case 3:
			return decode.Each(f.Text, o.readStatus)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read Pod: %w", err)
	}
	p.Key, p.Labels, p.Created = o.Key(), o.Labels, o.CreationTimestamp.Time
	p.UID = cmp.Or(o.Annotations[mirrored], string(o.UID))
	return nil
}

func (o *podObject) readSpec(f decode.Field) error {
	switch f.ID {
	case 2:
		return o.readContainer(f.Text, false)
	case 10:
		o.value.Node = f.Name()
	case 11:
		o.absent = o.absent || f.Flag()
	case 20:
		return o.readContainer(f.Text, true)
	}
	return nil
}

// readContainer takes over named ports. Of the init containers only those
// that go on beside the others are reached by anybody.
func (o *podObject) readContainer(b []byte, initial bool) error {
	var ports []policy.NamedPort
	stays := !initial
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 6:
			p := policy.NamedPort{Protocol: service.TCP}
			err := decode.Each(f.Text, func(f decode.Field) error {
				switch f.ID {
				case 1:
					p.Name = f.Name()
				case 3:
					p.Port = f.Port()
				case 4:
					p.Protocol = f.Protocol()
				}
				return nil
			})
			if p.Name != "" {
				ports = append(ports, p)
			}
			return err
		case 24:
			stays = stays || string(f.Text) == "Always"
		}
		return nil
	})
	if stays {
		o.value.Ports = append(o.value.Ports, ports...)
	}
	return err
}

func (o *podObject) readStatus(f decode.Field) error {
	switch f.ID {
	case 1:
		phase := string(f.Text)
		o.absent = o.absent || phase == "Succeeded" || phase == "Failed"
	case 12:
		return decode.Each(f.Text, func(f decode.Field) error {
			if a := f.Address(); f.ID == 1 && a.IsValid() {
				o.value.Addresses = append(o.value.Addresses, a)
			}
			return nil
		})
	}
	return nil
}

// Unmarshal reads a Namespace.
func (o *namespaceObject) Unmarshal(b []byte) error {
	err := decode.Each(b, func(f decode.Field) error {
		if f.ID == 1 {
			return o.Read(f.Text, every, none)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read Namespace: %w", err)
	}
	o.value = policy.Namespace{Name: o.Name, Labels: o.Labels}
	return nil
}

// Unmarshal reads a Node.
func (o *nodeObject) Unmarshal(b []byte) error {
	n := &o.value
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, every, none)
		case 3:
			return decode.Each(f.Text, func(f decode.Field) error {
				if f.ID != 5 {
					return nil
				}
				return decode.Each(f.Text, func(f decode.Field) error {
					// Host names are among them.
					if a := f.Address(); f.ID == 2 && a.IsValid() {
						n.Addresses = append(n.Addresses, a)
					}
					return nil
				})
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read Node: %w", err)
	}
	n.Name, n.Labels = o.Name, o.Labels
	return nil
}

// Unmarshal reads a NetworkPolicy.
func (o *policyObject) Unmarshal(b []byte) error {
	p := &o.value
	ingress, egress := policy.Rules{}, policy.Rules{}
	var types []string
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			return o.Read(f.Text, none, none)
		case 2:
			return decode.Each(f.Text, func(f decode.Field) (err error) {
				switch f.ID {
				case 1:
					p.Pods, err = selector(f.Text)
				case 2:
					ingress, err = addRule(ingress, f.Text)
				case 3:
					egress, err = addRule(egress, f.Text)
				case 4:
					types = append(types, string(f.Text))
				}
				return err
			})
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read NetworkPolicy: %w", err)
	}
	p.Key = o.Key()
	// The API server fills the types in, with Ingress always and Egress where
	// there are rules for it.
	if slices.Contains(types, "Ingress") || types == nil {
		p.Ingress = &ingress
	}
	if slices.Contains(types, "Egress") || types == nil && len(egress) > 0 {
		p.Egress = &egress
	}
	return nil
}

func selector(b []byte) (policy.Selector, error) {
	s := policy.Selector{}
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			var entry map[string]string
			err := decode.Entry(f.Text, &entry, every)
			for k, v := range entry {
				s = append(s, policy.Requirement{Label: k, Operator: policy.In, Values: []string{v}})
			}
			return err
		case 2:
			var r policy.Requirement
			err := decode.Each(f.Text, func(f decode.Field) error {
				switch f.ID {
				case 1:
					r.Label = f.Name()
				case 2:
					r.Operator = policy.Operator(f.Name())
				case 3:
					r.Values = append(r.Values, f.Name())
				}
				return nil
			})
			s = append(s, r)
			return err
		}
		return nil
	})
	return s, err
}

// addRule reads a rule. Peers and ports that are missing, or empty, are all.
func addRule(list policy.Rules, b []byte) (policy.Rules, error) {
	var r policy.Rule
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			p := policy.Port{Protocol: service.TCP}
			r.Ports = append(r.Ports, p)
			return readPort(f.Text, &r.Ports[len(r.Ports)-1])
		case 2:
			p, err := peer(f.Text)
			r.Peers = append(r.Peers, p)
			return err
		}
		return nil
	})
	return append(list, r), err
}

// never is a port that no packet has: what a rule says of one that cannot be.
var never = policy.Port{Protocol: service.TCP, First: 1, Last: 0}

func readPort(b []byte, p *policy.Port) error {
	var given, bad, ends bool
	var end uint16
	err := decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1:
			p.Protocol = f.Protocol()
			bad = bad || p.Protocol == 0
		case 2:
			given = true
			return decode.Each(f.Text, func(f decode.Field) error {
				switch f.ID {
				case 2:
					p.First = f.Port()
				case 3:
					p.Name = f.Name()
				}
				return nil
			})
		case 3:
			ends, end = true, f.Port()
		}
		return nil
	})
	p.Last = p.First
	if ends {
		p.Last = end // if it is less, the compiler says so
	}
	if bad || (given || ends) && p.Name == "" && p.First == 0 {
		*p = never
	}
	return err
}

func peer(b []byte) (p policy.Peer, err error) {
	known := false
	err = decode.Each(b, func(f decode.Field) error {
		switch f.ID {
		case 1, 2:
			known = true
			s, err := selector(f.Text)
			if f.ID == 1 {
				p.Pods = &s
			} else {
				p.Namespaces = &s
			}
			return err
		case 3:
			known = true
			return decode.Each(f.Text, func(f decode.Field) error {
				block, err := netip.ParsePrefix(string(f.Text))
				switch {
				case f.ID == 1 && err != nil:
					known = false
				case f.ID == 1:
					p.Block = block
				case err == nil:
					p.Except = append(p.Except, block)
				default:
					known = false // without the exception it would be too much
				}
				return nil
			})
		}
		return nil
	})
	if !known {
		p = policy.Peer{Unknown: true}
	}
	return p, err
}
