package webapp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
)

// Ways are URLs that lead to the pods of web-app by Services: by name, by
// cluster address, and by the port that each node has for them at each of its
// addresses. All answer with the pod's name.
func Ways(ctx context.Context, kubectl Kubectl) ([]string, error) {
	var services struct {
		Items []struct {
			Metadata struct{ Name string }
			Spec     struct {
				ClusterIPs []netip.Addr
				Ports      []struct{ NodePort uint16 }
			}
		}
	}
	var nodes struct {
		Items []struct {
			Status struct {
				Addresses []struct{ Type, Address string }
			}
		}
	}
	if err := read(ctx, kubectl, &services, "services", "web-service", "web-node-port"); err != nil {
		return nil, err
	}
	if err := read(ctx, kubectl, &nodes, "nodes"); err != nil {
		return nil, err
	}
	var urls []string
	add := func(host string) { urls = append(urls, "http://"+host+"/hostname") }
	for _, s := range services.Items {
		add(s.Metadata.Name)
		add(s.Metadata.Name + ".default.svc.cluster.local")
		for _, a := range s.Spec.ClusterIPs {
			add(netip.AddrPortFrom(a, 80).String())
		}
		for _, n := range nodes.Items {
			for _, a := range n.Status.Addresses {
				addr, err := netip.ParseAddr(a.Address)
				if a.Type == "InternalIP" && err == nil && s.Spec.Ports[0].NodePort != 0 {
					add(netip.AddrPortFrom(addr, s.Spec.Ports[0].NodePort).String())
				}
			}
		}
	}
	return urls, nil
}

func read(ctx context.Context, kubectl Kubectl, into any, what ...string) error {
	out, err := kubectl(ctx, append([]string{"get", "-o", "json"}, what...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(out, into); err != nil {
		return fmt.Errorf("read %v: %w", what, err)
	}
	return nil
}
