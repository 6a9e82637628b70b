package policy

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/nflog"
	compiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/permit"
)

// Drop is what one of this node's pods lost within a second.
type Drop struct {
	Direction verdict.Direction
	// Sources are the policies that isolate the pod, none of which allows it,
	// or the rule that denies it; none if policies have changed since.
	Sources []verdict.Source
	Packets int
}

const (
	// interval is between two lots of lines.
	interval = time.Second
	// maxFlows is how many flows are told apart within an interval.
	maxFlows = 256
)

// flow is what dropped packets have in common.
type flow struct {
	direction verdict.Direction
	// reply says that it was the answer that was dropped; the packet is the
	// one that it answers.
	reply  bool
	packet compiler.Packet
}

// ends are the address of the pod that policies are about, and the other one.
func (f flow) ends() (pod, peer netip.Addr) {
	if f.direction == verdict.Egress {
		return f.packet.Src, f.packet.Dst.Addr()
	}
	return f.packet.Dst.Addr(), f.packet.Src
}

// drops hears of dropped packets and says whose they were. The kernel bounds
// what it tells a second, and this what it keeps and says.
type drops struct {
	module *Module
	log    *nflog.Log

	mu    sync.Mutex
	flows map[flow]int
	more  int // packets of flows that were not told apart
}

// hear is nil where drops are not logged, or the kernel cannot tell of them:
// policies hold all the same.
func hear(m *Module) *drops {
	if m.deps.Config.LogDrops == 0 {
		return nil
	}
	log, err := nflog.Open(permit.LogGroup, 0)
	if err != nil {
		m.deps.Log.Error("packets that policies drop are not logged", "error", err)
		return nil
	}
	return &drops{module: m, log: log, flows: map[flow]int{}}
}

func (d *drops) close() {
	if d != nil {
		d.log.Close()
	}
}

// read listens to the kernel until ctx ends.
func (d *drops) read(ctx context.Context) {
	if err := d.log.Read(ctx, d.note, d.module.deps.Overrun); err != nil {
		d.module.deps.Log.Error("packets that policies drop are not logged any more", "error", err)
	}
}

// note counts one packet, told by the chain that drops it.
func (d *drops) note(chain string, p nflog.Packet) {
	f := flow{packet: compiler.Packet{Src: p.Src.Addr(), Dst: p.Dst, Proto: p.Proto}}
	egress, reply := permit.Dropping(chain)
	if f.reply = reply; reply {
		f.packet.Src, f.packet.Dst = p.Dst.Addr(), p.Src
	}
	if egress {
		f.direction = verdict.Egress
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if n, known := d.flows[f]; known || len(d.flows) < maxFlows {
		d.flows[f] = n + 1
	} else {
		d.more++
	}
}

// tell says once in an interval what was heard of.
func (d *drops) tell(ctx context.Context) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.flush()
		}
	}
}

func (d *drops) flush() {
	d.mu.Lock()
	flows, silent := d.flows, d.more
	d.flows, d.more = map[flow]int{}, 0
	d.mu.Unlock()
	byPackets := func(a, b flow) int { return cmp.Or(flows[b]-flows[a], strings.Compare(fmt.Sprint(a), fmt.Sprint(b))) }
	for i, f := range slices.SortedFunc(maps.Keys(flows), byPackets) {
		decision := d.why(f)
		d.module.deps.Dropped(Drop{Direction: f.direction, Sources: blamed(decision), Packets: flows[f]})
		if i < d.module.deps.Config.LogDrops {
			d.say(f, flows[f], decision)
		} else {
			silent += flows[f]
		}
	}
	if silent > 0 {
		d.module.deps.Log.Info("policies drop more than is logged", "packets", silent)
	}
}

// why is the decision at the end that drops a flow; by now it may be another.
func (d *drops) why(f flow) verdict.Decision {
	for _, decision := range d.module.Explain(f.packet) {
		if decision.Direction == f.direction {
			return decision
		}
	}
	return verdict.Decision{Allowed: true}
}

// blamed are those who would have had to allow it, or the rule that denies it.
func blamed(d verdict.Decision) []verdict.Source {
	switch {
	case d.Allowed:
		return nil
	case d.By != nil:
		return []verdict.Source{*d.By}
	}
	return d.Isolating
}

// say writes one line.
func (d *drops) say(f flow, packets int, decision verdict.Decision) {
	pod, peer := f.ends()
	policies := "others than now"
	if list := blamed(decision); len(list) > 0 {
		policies = verdict.List(list)
	}
	d.module.deps.Log.Info("a policy drops packets", "direction", f.direction.String(), "pod", d.module.name(pod), "address", pod,
		"peer", d.module.name(peer), "peerAddress", peer, "protocol", f.packet.Proto.String(), "port", f.packet.Dst.Port(),
		"reply", f.reply, "packets", packets, "policies", policies)
}
