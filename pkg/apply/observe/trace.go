package observe

import (
	"encoding/binary"
	"strings"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/facts"
)

// take reads one message of the trace.
func (o *Observer) take(family byte, b []byte) {
	text := func(kind uint16) string { return wire.String(wire.Find(b, kind)) }
	table := text(unix.NFTA_TRACE_TABLE)
	s := facts.Sighting{
		Packet: wire.Number(wire.Find(b, unix.NFTA_TRACE_ID)),
		Chain:  name(nftables.TableFamily(family), table, text(unix.NFTA_TRACE_CHAIN)),
		In:     o.links[wire.Number(wire.Find(b, unix.NFTA_TRACE_IIF))], Out: o.links[wire.Number(wire.Find(b, unix.NFTA_TRACE_OIF))],
	}
	s.Src, s.Dst = addresses(wire.Find(b, unix.NFTA_TRACE_NETWORK_HEADER), wire.Find(b, unix.NFTA_TRACE_TRANSPORT_HEADER))
	// Only the first message of a chain has the headers, and only a base chain
	// a hook.
	known := o.packets[s.Packet]
	if s.Hook = o.hooks[s.Chain]; s.Hook == "" {
		s.Hook = known.hook
	}
	if !s.Dst.IsValid() {
		s.Src, s.Dst = known.src, known.dst
	}
	if len(o.packets) > most {
		clear(o.packets)
	}
	o.packets[s.Packet] = packet{s.Src, s.Dst, s.Hook}
	s.Outer = s.Dst.Port() == o.port
	if handle := wire.Find(b, unix.NFTA_TRACE_RULE_HANDLE); len(handle) == 8 {
		s.Handle = binary.BigEndian.Uint64(handle)
	}
	verdict := wire.Find(b, unix.NFTA_TRACE_VERDICT, unix.NFTA_VERDICT_CODE)
	policy := wire.Find(b, unix.NFTA_TRACE_POLICY)
	s.Drops = len(verdict) == 4 && wire.Number(verdict) == 0 || len(policy) == 4 && wire.Number(policy) == 0
	ours := strings.HasPrefix(table, Prefix)
	if ours {
		if table != o.table {
			return // somebody else's watch
		}
		_, s.Point, _ = strings.Cut(text(unix.NFTA_TRACE_CHAIN), "-")
	} else if !s.Drops {
		return
	}
	if len(o.seen) == most {
		return
	}
	if len(o.seen) == 0 {
		close(o.first)
	}
	o.seen = append(o.seen, s)
}
