package services

import (
	"context"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/report"
)

// way is one way from a pod to another pod of its node.
type way struct {
	name string
	to   netip.AddrPort
	took []time.Duration // of single connections
	turn []time.Duration // of batches
}

// rate is connections per second, one after the other, in most turns.
func (w way) rate() float64 { return batch / report.Quantile(w.turn, 0.5).Seconds() }

// echoes are the Services that lead to a pod: of each node one whose clients
// go anywhere, and one whose clients stay.
const echoes = 6

func echo(n byte, sticky bool) (name string, a netip.Addr) {
	if sticky {
		return fmt.Sprintf("sticky-%d", n), netip.AddrFrom4([4]byte{10, 111, 1, n})
	}
	return fmt.Sprintf("echo-%d", n), netip.AddrFrom4([4]byte{10, 111, 0, n})
}

// populate makes two pods on a proxy's node, and the Services that lead to
// the second.
func (l *lab) populate(ctx context.Context, p *proxy) (err error) {
	if p.pods, err = pair.New(&l.Plane, p.node, p.n); err != nil {
		return err
	}
	for _, sticky := range []bool{false, true} {
		name, a := echo(p.n, sticky)
		spec := object{"clusterIP": a.String(), "ports": []object{{"name": "http", "port": 80, "protocol": "TCP"}}}
		if sticky {
			spec["sessionAffinity"] = "ClientIP"
		}
		s := object{"apiVersion": "v1", "kind": "Service", "metadata": object{"name": name}, "spec": spec}
		if err := l.API.Send(ctx, http.MethodPost, servicesPath, s, nil); err != nil {
			return err
		}
		part := sliceFor(name, name, pair.Port, []object{endpoint(p.pods.Server, fmt.Sprint("node-", p.n))})
		if err := l.API.Send(ctx, http.MethodPost, slicesPath, part, nil); err != nil {
			return err
		}
	}
	return nil
}

const (
	// batch is how many connections go one way before it is the next one's turn.
	batch   = 50
	batches = 100
)

// connect makes connections straight and through Services, by turns.
func (p *proxy) connect() ([]way, error) {
	ways := []way{{name: "straight", to: netip.AddrPortFrom(p.pods.Server, pair.Port)}}
	for _, sticky := range []bool{false, true} {
		_, a := echo(p.n, sticky)
		ways = append(ways, way{name: map[bool]string{false: "Service", true: "Service with affinity"}[sticky], to: netip.AddrPortFrom(a, 80)})
	}
	for range batches {
		for i := range ways {
			w := &ways[i]
			took, err := p.pods.Connect(w.to, batch)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			w.took, w.turn = append(w.took, took...), append(w.turn, report.Sum(took))
		}
	}
	return ways, nil
}
