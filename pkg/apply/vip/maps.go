package vip

import (
	"encoding/binary"
	"net/netip"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
)

// affinitySize is how many clients are remembered per family. Beyond it new
// ones get any endpoint.
const affinitySize = 1 << 18

// layout is all maps and sets. Their number is constant: the kernel's cost of
// a change grows with the square of it, and hardly with the elements.
func layout() []table.Map {
	list := []table.Map{
		{Name: "protocols", Key: []table.Kind{table.InetProto},
			Fixed: [][]byte{{byte(service.TCP)}, {byte(service.UDP)}, {byte(service.SCTP)}}},
		{Name: "picks", Key: []table.Kind{table.ClassID}, Verdicts: true},
		{Name: "clocks", Key: []table.Kind{table.Mark}, Verdicts: true},
	}
	number := []table.Kind{table.ClassID}
	for _, f := range table.Families {
		front := []table.Kind{f.Addr, table.InetProto, table.InetService}
		endpoint := []table.Kind{f.Addr, table.InetService}
		list = append(list,
			table.Map{Name: "frontends" + f.Suffix, Key: front, Data: number},
			table.Map{Name: "outside" + f.Suffix, Key: front, Data: number},
			table.Map{Name: "timeouts" + f.Suffix, Key: front, Data: []table.Kind{table.Mark}},
			table.Map{Name: "endpoints" + f.Suffix, Key: []table.Kind{table.ClassID, table.Mark}, Data: endpoint},
			table.Map{Name: "affinity" + f.Suffix, Key: []table.Kind{f.Addr, table.ClassID}, Data: endpoint, Dynamic: true, Size: affinitySize},
			table.Map{Name: "fenced" + f.Suffix, Key: front},
			table.Map{Name: "sources" + f.Suffix, Key: append(front[:3:3], f.Addr), Interval: true},
			table.Map{Name: "addresses" + f.Suffix, Key: []table.Kind{f.Addr}},
			table.Map{Name: "ranges" + f.Suffix, Key: []table.Kind{f.Addr}, Interval: true},
			table.Map{Name: "hairpins" + f.Suffix, Key: []table.Kind{f.Addr, f.Addr}},
		)
	}
	return list
}

func appendFront(b []byte, f vip.Front) []byte {
	return table.AppendPort(table.AppendByte(table.AppendAddr(b, f.Addr), byte(f.Proto)), f.Port)
}

func appendEndpoint(b []byte, a netip.AddrPort) []byte {
	return table.AppendPort(table.AppendAddr(b, a.Addr()), a.Port())
}

func readFront(b []byte) (vip.Front, bool) {
	n := len(b) - 8
	a, ok := netip.AddrFromSlice(b[:max(n, 0)])
	if !ok {
		return vip.Front{}, false
	}
	return vip.Front{Addr: a, Proto: service.Protocol(b[n]), Port: binary.BigEndian.Uint16(b[n+4:])}, true
}

func readEndpoint(b []byte) (netip.AddrPort, bool) {
	n := len(b) - 4
	a, ok := netip.AddrFromSlice(b[:max(n, 0)])
	if !ok {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(b[n:])), true
}

// last is the highest address of a range.
func last(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := range b {
		host := min(max((i+1)*8-p.Bits(), 0), 8)
		b[i] |= byte(1<<host - 1)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
