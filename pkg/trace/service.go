// Package trace follows one packet through what the kernel was told, and says
// at each step why it goes where it goes. Inputs are compiled programs and a
// packet; outputs are a verdict and the steps that led to it. It refuses to
// look at the kernel or at the objects of the API: what it explains is what
// was programmed.
package trace

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// Origin is where a node gets a packet from.
type Origin int

// Origins.
const (
	FromPod     Origin = iota // of this node
	FromNode                  // a process in the node's own network
	FromOutside               // through any other interface
)

func (o Origin) String() string { return [...]string{"pod", "node", "outside"}[o] }

// Packet opens a connection.
type Packet struct {
	Origin Origin
	Src    netip.Addr
	Dst    netip.AddrPort
	Proto  service.Protocol
}

// Action is what happens to a packet.
type Action int

// Actions.
const (
	Pass    Action = iota // not a Service's, goes on unchanged
	Forward               // to one of the endpoints
	Refuse                // answered "port unreachable"
	Drop                  // silence
)

func (a Action) String() string { return [...]string{"pass", "forward", "refuse", "drop"}[a] }

// Endpoint is a possible destination.
type Endpoint struct {
	Addr netip.AddrPort
	// Masquerade is true if the endpoint sees an address of the node.
	Masquerade bool
}

// Verdict is a packet's fate.
type Verdict struct {
	Action Action
	// Endpoints are equally probable for a client that is not known yet.
	Endpoints []Endpoint
	// Sticky is for how many seconds a client stays with its endpoint.
	Sticky uint32
	Steps  []string
}

// Service walks one packet through the Services' part of the data path. own
// are the node's addresses: what is delivered there never leaves, so nothing
// can masquerade it.
func Service(p vip.Program, own []netip.Addr, pkt Packet) Verdict {
	w := walk{program: p, own: own, packet: pkt, front: vip.Front{Addr: pkt.Dst.Addr(), Proto: pkt.Proto, Port: pkt.Dst.Port()}}
	if !w.admitted() {
		return w.end(Drop, "services-sources: %s is in no range that may use it", pkt.Src)
	}
	value, ok := w.lookup()
	if !ok {
		return w.unassigned()
	}
	switch {
	case value.Count() == 0 && value == vip.Refuse:
		return w.end(Refuse, "no endpoint is left")
	case value.Count() == 0:
		return w.end(Drop, "no endpoint that the traffic policy lets this node use")
	}
	return w.pick(value)
}

type walk struct {
	steps
	program    vip.Program
	own        []netip.Addr
	packet     Packet
	front      vip.Front
	masquerade bool
}

// steps collects what a walk meets.
type steps struct{ verdict Verdict }

func (w *steps) step(format string, args ...any) {
	w.verdict.Steps = append(w.verdict.Steps, fmt.Sprintf(format, args...))
}

func (w *steps) end(a Action, format string, args ...any) Verdict {
	w.step(format, args...)
	w.verdict.Action = a
	return w.verdict
}

func (w *walk) admitted() bool {
	if _, fenced := w.program.Fenced[w.front]; !fenced {
		return true
	}
	w.step("services-fenced: %s is for some clients only", w.front)
	for bits := w.packet.Src.BitLen(); bits >= 0; bits-- {
		s := vip.Source{Front: w.front, Clients: netip.PrefixFrom(w.packet.Src, bits).Masked()}
		if _, ok := w.program.Sources[s]; ok {
			w.step("services-sources: %s is in %s", w.packet.Src, s.Clients)
			return true
		}
	}
	return false
}

func (w *walk) lookup() (vip.Value, bool) {
	if w.packet.Origin == FromOutside {
		if v, ok := w.program.Outside[w.front]; ok {
			w.step("services-outside: %s is %s", w.front, v)
			return v, true
		}
	}
	v, ok := w.program.Frontends[w.front]
	if !ok {
		return 0, false
	}
	w.step("services-frontends: %s is %s", w.front, v)
	w.masquerade = w.packet.Origin != FromPod || v.IsMasqueraded()
	return v, true
}

func (w *walk) unassigned() Verdict {
	known := w.packet.Proto == service.TCP || w.packet.Proto == service.UDP || w.packet.Proto == service.SCTP
	if _, ok := w.program.Addresses[w.front.Addr]; ok && known {
		return w.end(Refuse, "services-addresses: the Service at %s has no such port", w.front.Addr)
	}
	for r := range w.program.Ranges {
		if r.Contains(w.front.Addr) {
			return w.end(Drop, "services-ranges: no Service has this address of %s", r)
		}
	}
	return w.end(Pass, "no Service answers at %s", w.front)
}

func (w *walk) pick(v vip.Value) Verdict {
	w.verdict.Action = Forward
	if v.IsSticky() {
		w.verdict.Sticky = w.program.Timeouts[w.front]
		w.step("services-affinity: a client seen in the last %d s keeps its endpoint", w.verdict.Sticky)
	}
	for i := range v.Count() {
		to, ok := w.program.Endpoints[vip.Slot{Group: v.Group(), Index: uint32(i)}]
		if !ok {
			continue // the rules fall back on slot 0
		}
		e := Endpoint{Addr: to, Masquerade: w.masqueraded(to.Addr())}
		w.verdict.Endpoints = append(w.verdict.Endpoints, e)
		w.step("services-endpoints: slot %d is %s", i, to)
	}
	return w.verdict
}

// masqueraded follows the rules after routing.
func (w *walk) masqueraded(to netip.Addr) bool {
	_, here := w.program.Hairpins[to]
	switch {
	case slices.Contains(w.own, to):
		return false
	case here && to == w.packet.Src:
		return true
	case w.packet.Origin == FromNode && here:
		return false
	}
	return w.masquerade
}
