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
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/bench/traffic/ends"
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
	return 18
}

// window is how long each thing is measured in a turn.
const window = 80 * time.Millisecond

// way is a way from a client to a server.
type way struct {
	family, name string
	ends.Client
	// limit is the way beside which this one is measured; nil is itself.
	limit *way
	// promised is what leads to a cluster address.
	promised bool
	// turns has, for each measure, a figure of each turn.
	turns [measures][]float64
}

// bare is what all limits of a family end at: a wire with nothing else.
func (w *way) bare() *way {
	for w.limit != nil {
		w = w.limit
	}
	return w
}

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
		var f ends.Flow
		n := map[int]int{streamOne: 1, streamFour: 4}[kind]
		if f, err = w.Streams(n, window); err == nil {
			add(kind, float64(f.Count)*8/f.Took.Seconds()/1e9)
			add(kind+1, float64(f.CPU)/float64(f.Count))
		}
	case tripHalf:
		var took []time.Duration
		if took, err = w.RoundTrips(window); err == nil {
			add(tripHalf, us(report.Quantile(took, 0.5)))
			add(tripMost, us(report.Quantile(took, 0.99)))
		}
	case connectHalf:
		var took []time.Duration
		if took, err = w.Connections(window); err == nil {
			add(connectHalf, us(report.Quantile(took, 0.5)))
			add(connectRate, float64(len(took))/report.Sum(took).Seconds())
		}
	case packetRate:
		var f ends.Flow
		if f, err = w.Packets(window); err == nil {
			add(packetRate, float64(f.Count)/f.Took.Seconds()/1000)
			add(costPacket, us(f.CPU)/float64(f.Count))
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
	_, err := w.RoundTrips(0)
	if err == nil {
		_, err = w.Packets(time.Millisecond)
	}
	return err
}

// clusterIPs lead to the servers on the near and the far node.
var clusterIPs = [families][2]netip.Addr{
	{netip.MustParseAddr("10.96.1.1"), netip.MustParseAddr("10.96.1.2")},
	{netip.MustParseAddr("fd00:96::101"), netip.MustParseAddr("fd00:96::102")},
}

// ways makes pods, servers, Services, and what they are measured beside. What
// comes from outside, and upstream's plugins, are measured by IPv4.
func (l *lab) ways(ctx context.Context, upstream string) (all []*way, err error) {
	clock, err := ends.NewClock()
	if err != nil {
		return nil, err
	}
	bare, onWire, onVXLAN, err := l.bare()
	if err != nil {
		return nil, err
	}
	pod, _, err := l.pod(near, "client")
	if err != nil {
		return nil, err
	}
	here, err := l.server(near)
	if err != nil {
		return nil, err
	}
	there, err := l.server(far)
	if err != nil {
		return nil, err
	}
	add := func(family int, name string, limit *way, from ends.Place, to netip.Addr, at *ends.Server) *way {
		w := &way{family: familyNames[family], name: name, limit: limit, Client: ends.Client{Place: from, To: to, At: at, Clock: clock}}
		all = append(all, w)
		return w
	}
	for f, vips := range clusterIPs {
		wire := add(f, "bare veth pair", nil, bare, onWire[f].Addr, onWire[f])
		vxlan := add(f, "bare VXLAN device on it", wire, bare, onVXLAN[f].Addr, onVXLAN[f])
		same := add(f, "pod to pod, one node", wire, pod, here[f].Addr, here[f])
		across := add(f, "pod to pod, two nodes", vxlan, pod, there[f].Addr, there[f])
		add(f, "pod to ClusterIP, one node", same, pod, vips[0], here[f]).promised = true
		add(f, "pod to ClusterIP, two nodes", across, pod, vips[1], there[f]).promised = true
		if err := l.service(ctx, "near", vips[0], here[f], near, f == ipv4); err != nil {
			return nil, err
		}
		if err := l.service(ctx, "far", vips[1], there[f], far, false); err != nil {
			return nil, err
		}
	}
	wire := all[0]
	visitor, err := l.visitor()
	if err != nil {
		return nil, err
	}
	outside := add(ipv4, "outside to pod", wire, visitor, here[ipv4].Addr, here[ipv4])
	add(ipv4, "outside to NodePort", outside, visitor, plane.NodeAddress(near), here[ipv4])
	for _, p := range []struct{ plugin, more string }{{"ptp", ""}, {"bridge", `"bridge":"pods","isGateway":true,`}} {
		client, server, err := l.upstream(upstream, p.plugin, p.more)
		if err != nil {
			return nil, err
		}
		add(ipv4, p.plugin+", one node", wire, client, server.Addr, server)
	}
	slices.SortStableFunc(all, func(a, b *way) int { return strings.Compare(a.family, b.family) })
	return all, nil
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	a := report.Area{Name: "Traffic", Options: fmt.Sprintf("two nodes joined by a veth pair, Services and policies on, no policy; ptp and bridge on a node with nothing else; %d turns of %v", o.turns(), window)}
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
