// Package traffic measures what packets pay for their way: from pod to pod of
// one node and of two, to a cluster address and through a node port, each beside
// the least that the same way can cost. The real plugin and the real daemon
// program two nodes; a veth pair and a VXLAN device between two namespaces that
// have nothing else are the limits, and pods of upstream's ptp and bridge, on a
// node without Services and policies, are beside them. Inputs are options and the programs; outputs
// are figures and verdicts. It refuses to let a daemon or the control plane run
// beside the packets, and to relate what was not measured by turns.
package traffic

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
)

// Options say how much is measured.
type Options struct {
	// Quick is a few turns.
	Quick bool
	// Upstream is the directory of upstream's plugins.
	Upstream string
}

// turns is how often packets go each way.
func (o Options) turns() int {
	if o.Quick {
		return 3
	}
	return 22
}

// window is how long each thing is measured in a turn.
const window = 80 * time.Millisecond

// way is a way from a client to a server.
type way struct {
	name string
	client
	// limit is the way beside which this one is measured, as its index.
	limit int
	// turns has, for each measure, a figure of each turn.
	turns [measures][]float64
}

// Ways, in the order of the tables.
const (
	onWire = iota
	onVXLAN
	sameNode
	acrossNodes
	clusterIPSameNode
	clusterIPAcrossNodes
	fromOutside
	nodePort
	byPTP
	byBridge
)

// measures are what is measured of each way.
const (
	streamOne = iota
	costOne
	streamFour
	costFour
	tripHalf // p50
	tripMost // p99
	connectHalf
	connectRate
	packetRate
	costPacket
	measures
)

// turn measures one of the four kinds of traffic, and adds its figures.
func (w *way) turn(kind int) error {
	var err error
	add := func(measure int, f float64) { w.turns[measure] = append(w.turns[measure], f) }
	us := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
	switch kind {
	case streamOne, streamFour:
		var f flow
		n := map[int]int{streamOne: 1, streamFour: 4}[kind]
		if f, err = w.streams(n, window); err == nil {
			add(kind, float64(f.count)*8/f.took.Seconds()/1e9)
			add(kind+1, float64(f.cpu)/float64(f.count))
		}
	case tripHalf:
		var took []time.Duration
		if took, err = w.roundTrips(window); err == nil {
			add(tripHalf, us(report.Quantile(took, 0.5)))
			add(tripMost, us(report.Quantile(took, 0.99)))
		}
	case connectHalf:
		var took []time.Duration
		if took, err = w.connections(window); err == nil {
			add(connectHalf, us(report.Quantile(took, 0.5)))
			add(connectRate, float64(len(took))/report.Sum(took).Seconds())
		}
	case packetRate:
		var f flow
		if f, err = w.packets(window); err == nil {
			add(packetRate, float64(f.count)/f.took.Seconds()/1000)
			add(costPacket, us(f.cpu)/float64(f.count))
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", w.name, err)
	}
	return nil
}

// kinds are those of traffic, by the first of their measures.
var kinds = []int{streamOne, streamFour, tripHalf, connectHalf, packetRate}

// open is an error where a way does not lead to its server.
func (w *way) open() error {
	_, err := w.roundTrips(0)
	if err == nil {
		_, err = w.packets(time.Millisecond)
	}
	return err
}

// ways makes pods, servers, Services, and what they are measured beside.
func (l *lab) ways(ctx context.Context, upstream string) ([]*way, error) {
	counter, err := newClock()
	if err != nil {
		return nil, err
	}
	bare, wireEnd, vxlanEnd, err := l.bare()
	if err != nil {
		return nil, err
	}
	pod, _, err := l.pod(near, "client", false)
	if err != nil {
		return nil, err
	}
	_, here, err := l.pod(near, "server", true)
	if err != nil {
		return nil, err
	}
	_, there, err := l.pod(far, "server", true)
	if err != nil {
		return nil, err
	}
	visitor, err := l.visitor()
	if err != nil {
		return nil, err
	}
	toHere, toThere := netip.MustParseAddr("10.96.1.1"), netip.MustParseAddr("10.96.1.2")
	if err := l.service(ctx, "near", toHere, here, near, true); err != nil {
		return nil, err
	}
	if err := l.service(ctx, "far", toThere, there, far, false); err != nil {
		return nil, err
	}
	ptp, byPlugin, err := l.upstream(upstream, "ptp", "")
	if err != nil {
		return nil, err
	}
	bridge, overBridge, err := l.upstream(upstream, "bridge", `"bridge":"pods","isGateway":true,`)
	if err != nil {
		return nil, err
	}
	all := []*way{
		onWire:               {name: "bare veth pair", client: client{place: bare, to: wireEnd.addr, at: wireEnd}, limit: onWire},
		onVXLAN:              {name: "bare VXLAN device on it", client: client{place: bare, to: vxlanEnd.addr, at: vxlanEnd}, limit: onWire},
		sameNode:             {name: "pod to pod, one node", client: client{place: pod, to: here.addr, at: here}, limit: onWire},
		acrossNodes:          {name: "pod to pod, two nodes", client: client{place: pod, to: there.addr, at: there}, limit: onVXLAN},
		clusterIPSameNode:    {name: "pod to ClusterIP, one node", client: client{place: pod, to: toHere, at: here}, limit: sameNode},
		clusterIPAcrossNodes: {name: "pod to ClusterIP, two nodes", client: client{place: pod, to: toThere, at: there}, limit: acrossNodes},
		fromOutside:          {name: "outside to pod", client: client{place: visitor, to: here.addr, at: here}, limit: onWire},
		nodePort:             {name: "outside to NodePort", client: client{place: visitor, to: plane.NodeAddress(near), at: here}, limit: fromOutside},
		byPTP:                {name: "ptp, one node", client: client{place: ptp, to: byPlugin.addr, at: byPlugin}, limit: onWire},
		byBridge:             {name: "bridge, one node", client: client{place: bridge, to: overBridge.addr, at: overBridge}, limit: onWire},
	}
	for _, w := range all {
		w.clock = counter
	}
	return all, nil
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	a := report.Area{Name: "Traffic", Options: fmt.Sprintf("IPv4, two nodes joined by a veth pair, Services and policies on, no policy; ptp and bridge on a node with nothing else; %d turns of %v", o.turns(), window)}
	l := &lab{}
	defer l.close()
	if err := steps.Do("control plane", func() error { return l.up(ctx, t) }); err != nil {
		return a, err
	}
	var ways []*way
	if err := steps.Do("pods and Services", func() error {
		if ways, err = l.ways(ctx, o.Upstream); err != nil {
			return err
		}
		return l.settle(ctx, ways)
	}); err != nil {
		return a, err
	}
	if err := steps.Do("packets", func() error {
		for range o.turns() {
			for _, kind := range kinds {
				for _, i := range rand.Perm(len(ways)) { // nobody always comes after the same
					if err := ways[i].turn(kind); err != nil {
						return err
					}
				}
			}
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		return a, err
	}
	a.Tables, a.Verdicts = tables(ways), verdicts(ways)
	return a, nil
}
