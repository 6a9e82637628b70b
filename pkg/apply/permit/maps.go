package permit

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/permit"
)

// layout is all maps and sets. Their number is constant: the kernel's cost of
// a change grows with the square of it, and hardly with the elements.
func layout() []table.Map {
	number := []table.Kind{table.ClassID}
	port := []table.Kind{table.ClassID, table.InetProto, table.InetService}
	list := []table.Map{
		{Name: "protocols", Key: []table.Kind{table.InetProto},
			Fixed: [][]byte{{byte(service.TCP)}, {byte(service.UDP)}, {byte(service.SCTP)}}},
		{Name: "ports", Key: port},
		{Name: "spans", Key: port, Interval: true},
	}
	for _, f := range table.Families {
		pair := []table.Kind{f.Addr, table.ClassID}
		list = append(list,
			table.Map{Name: "known" + f.Suffix, Key: append([]table.Kind{table.ClassID, f.Addr, f.Addr}, port[1:]...),
				Dynamic: true, Size: permit.KnownMax},
			table.Map{Name: "loops" + f.Suffix, Key: []table.Kind{f.Addr, f.Addr}},
			table.Map{Name: "senders" + f.Suffix, Key: []table.Kind{f.Addr}},
			table.Map{Name: "receivers" + f.Suffix, Key: []table.Kind{f.Addr}},
			table.Map{Name: "peers" + f.Suffix, Key: []table.Kind{f.Addr}, Data: number},
			table.Map{Name: "ranges" + f.Suffix, Key: []table.Kind{f.Addr}, Data: number, Interval: true},
			table.Map{Name: "egress" + f.Suffix, Key: pair, Data: number},
			table.Map{Name: "ingress" + f.Suffix, Key: pair, Data: number},
		)
	}
	return list
}

// isolation writes which pods are isolated.
func isolation(b *wire.Batch, op int, p permit.Program) {
	addrs(b, op, "loops", p.Loops)
	addrs(b, op, "senders", p.Senders)
	addrs(b, op, "receivers", p.Receivers)
}

func peers(b *wire.Batch, op int, name string, m map[netip.Addr]permit.Class) {
	self := func(a netip.Addr, _ permit.Class) netip.Addr { return a }
	table.Each(b, op, name, m, self, func(w *wire.Attrs, a netip.Addr, c permit.Class) {
		table.Key(w, func(b []byte) []byte { return table.AppendAddr(b, a) })
		number(w, uint32(c))
	})
}

func ranges(b *wire.Batch, op int, m map[permit.Range]permit.Class) {
	intervals := make(map[table.Interval]permit.Class, len(m))
	for r, c := range m {
		intervals[table.Interval(r)] = c
	}
	table.Intervals(b, op, "ranges", intervals, func(w *wire.Attrs, c permit.Class) { number(w, uint32(c)) })
}

// spans writes single ports to one set, and more than one to another: a set with
// intervals takes 0.2 us longer to look into.
func spans(b *wire.Batch, op int, m map[permit.Span]struct{}) {
	single := table.List{Batch: b, Op: op, Name: "ports"}
	wide := table.List{Batch: b, Op: op, Name: "spans"}
	// The kernel takes elements of concatenated intervals out fastest in the
	// order in which it got them: a thousand within 40 ms, and within 2 s in
	// the reverse or in none (6.18).
	sorted := slices.SortedFunc(maps.Keys(m), func(a, b permit.Span) int {
		return cmp.Or(cmp.Compare(a.Ports&permit.MaxPorts, b.Ports&permit.MaxPorts), cmp.Compare(a.Proto, b.Proto), cmp.Compare(a.First, b.First))
	})
	for _, s := range sorted {
		first := func(w *wire.Attrs) { table.Key(w, func(b []byte) []byte { return appendSpan(b, s, s.First) }) }
		if s.First == s.Last {
			single.Add(first)
			continue
		}
		wide.Add(func(w *wire.Attrs) {
			first(w)
			table.KeyEnd(w, func(b []byte) []byte { return appendSpan(b, s, s.Last) })
		})
	}
	single.End()
	wide.End()
}

func addrs(b *wire.Batch, op int, name string, m map[netip.Addr]struct{}) {
	table.Each(b, op, name, m, func(a netip.Addr, _ struct{}) netip.Addr { return a }, func(w *wire.Attrs, a netip.Addr, _ struct{}) {
		table.Key(w, func(b []byte) []byte {
			if name == "loops" {
				b = table.AppendAddr(b, a)
			}
			return table.AppendAddr(b, a)
		})
	})
}

func pairs(b *wire.Batch, op int, name string, m map[permit.Pair]permit.Ports) {
	table.Each(b, op, name, m, func(p permit.Pair, _ permit.Ports) netip.Addr { return p.Pod },
		func(w *wire.Attrs, p permit.Pair, ports permit.Ports) {
			table.Key(w, func(b []byte) []byte { return table.AppendHost(table.AppendAddr(b, p.Pod), uint32(p.Class)) })
			number(w, uint32(ports))
		})
}

func number(w *wire.Attrs, v uint32) {
	table.Data(w, func(b []byte) []byte { return table.AppendHost(b, v) })
}

func appendSpan(b []byte, s permit.Span, port uint16) []byte {
	return table.AppendPort(table.AppendByte(table.AppendHost(b, uint32(s.Ports)), byte(s.Proto)), port)
}

// enter takes over the elements of one map; it reports false for what cannot
// be ours.
func enter(p permit.Program, name string, list []table.Element) bool {
	kind := strings.TrimRight(name, "46")
	if kind == "ranges" {
		table.ReadIntervals(list, func(r table.Interval, e table.Element) {
			p.Ranges[permit.Range(r)] = permit.Class(table.Host(e.Data))
		})
		return true
	}
	for _, e := range list {
		if kind == "ports" || kind == "spans" {
			last := e.Key
			if kind == "spans" {
				last = e.End
			}
			if len(e.Key) != spanSize || len(last) != spanSize {
				return false
			}
			p.Ports[permit.Span{
				Ports: permit.Ports(table.Host(e.Key)), Proto: service.Protocol(e.Key[4]),
				First: binary.BigEndian.Uint16(e.Key[8:]), Last: binary.BigEndian.Uint16(last[8:]),
			}] = struct{}{}
			continue
		}
		size := 16
		if strings.HasSuffix(name, "4") {
			size = 4
		}
		a, ok := netip.AddrFromSlice(e.Key[:min(size, len(e.Key))])
		if !ok {
			return false
		}
		switch kind {
		case "loops":
			p.Loops[a] = struct{}{}
		case "senders":
			p.Senders[a] = struct{}{}
		case "receivers":
			p.Receivers[a] = struct{}{}
		case "peers":
			p.Peers[a] = permit.Class(table.Host(e.Data))
		case "egress":
			p.Egress[permit.Pair{Pod: a, Class: permit.Class(table.Host(e.Key[size:]))}] = permit.Ports(table.Host(e.Data))
		case "ingress":
			p.Ingress[permit.Pair{Pod: a, Class: permit.Class(table.Host(e.Key[size:]))}] = permit.Ports(table.Host(e.Data))
		}
	}
	return true
}

// spanSize is the size of a key of ports, each field padded.
const spanSize = 12
