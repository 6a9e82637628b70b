package services

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"golang.org/x/sync/errgroup"
)

type object = map[string]any

const (
	servicesPath = "/api/v1/namespaces/default/services"
	slicesPath   = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
	// perSlice is how many endpoints the controller puts into a slice.
	perSlice = 100
	// atOnce is how many requests are on their way.
	atOnce = 16
)

// become changes the crowd to a size.
func (l *lab) become(ctx context.Context, s size) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range max(s.services, l.crowd.services) {
		is, will := i < l.crowd.services, i < s.services
		g.Go(func() error {
			switch {
			case !will:
				return l.remove(ctx, i)
			case !is:
				if err := l.API.Send(ctx, http.MethodPost, servicesPath, serviceObject(i), nil); err != nil {
					return err
				}
				return l.slices(ctx, http.MethodPost, i, s.endpoints)
			case s.endpoints != l.crowd.endpoints && slicesOf(s.endpoints) == slicesOf(l.crowd.endpoints):
				return l.slices(ctx, http.MethodPut, i, s.endpoints)
			case s.endpoints != l.crowd.endpoints:
				if err := l.removeSlices(ctx, i); err != nil {
					return err
				}
				return l.slices(ctx, http.MethodPost, i, s.endpoints)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	l.crowd = s
	return nil
}

func slicesOf(endpoints int) int { return (endpoints + perSlice - 1) / perSlice }

func name(i int) string { return fmt.Sprint("s-", i) }

func sliceName(i, part int) string { return fmt.Sprintf("s-%d-%d", i, part) }

func serviceObject(i int) object {
	return object{
		"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name(i)},
		"spec": object{
			"clusterIP": netip.AddrFrom4([4]byte{10, 100 + byte(i>>16), byte(i >> 8), byte(i)}).String(),
			"ports":     []object{{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}},
		},
	}
}

// endpointAddress is where the j-th of all endpoints is.
func endpointAddress(j int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 128 + byte(j>>16), byte(j >> 8), byte(j)})
}

// sliceObject is a part of a Service's endpoints.
func sliceObject(i, part, endpoints int) object {
	var list []object
	for j := part * perSlice; j < min((part+1)*perSlice, endpoints); j++ {
		list = append(list, endpoint(endpointAddress(i*endpoints+j), fmt.Sprint("other-", j%50)))
	}
	return sliceFor(name(i), sliceName(i, part), 8080, list)
}

func endpoint(a netip.Addr, node string) object {
	return object{"addresses": []string{a.String()}, "nodeName": node, "conditions": object{"ready": true, "serving": true, "terminating": false}}
}

func sliceFor(service, name string, port int, endpoints []object) object {
	return object{
		"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata": object{
			"name":        name,
			"labels":      object{"kubernetes.io/service-name": service, "endpointslice.kubernetes.io/managed-by": "bench"},
			"annotations": object{"endpoints.kubernetes.io/last-change-trigger-time": time.Now().UTC().Format(time.RFC3339Nano)},
		},
		"ports":     []object{{"name": "http", "port": port, "protocol": "TCP"}},
		"endpoints": endpoints,
	}
}

func (l *lab) slices(ctx context.Context, method string, i, endpoints int) error {
	for part := range slicesOf(endpoints) {
		path := slicesPath
		if method == http.MethodPut {
			path += "/" + sliceName(i, part)
		}
		if err := l.API.Send(ctx, method, path, sliceObject(i, part, endpoints), nil); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) removeSlices(ctx context.Context, i int) error {
	for part := range slicesOf(l.crowd.endpoints) {
		if err := l.API.Send(ctx, http.MethodDelete, slicesPath+"/"+sliceName(i, part), nil, nil); err != nil {
			return err
		}
	}
	return nil
}

func (l *lab) remove(ctx context.Context, i int) error {
	if err := l.removeSlices(ctx, i); err != nil {
		return err
	}
	return l.API.Send(ctx, http.MethodDelete, servicesPath+"/"+name(i), nil, nil)
}

// address is one that no endpoint had before.
func (l *lab) address() netip.Addr {
	l.replaced++
	return netip.AddrFrom4([4]byte{10, 250, byte(l.replaced >> 8), byte(l.replaced)})
}

// replace gives the first endpoint of a Service another address.
func (l *lab) replace(ctx context.Context, i int, a netip.Addr) error {
	o := sliceObject(i, 0, l.crowd.endpoints)
	o["endpoints"].([]object)[0]["addresses"] = []string{a.String()}
	return l.API.Send(ctx, http.MethodPut, slicesPath+"/"+sliceName(i, 0), o, nil)
}
