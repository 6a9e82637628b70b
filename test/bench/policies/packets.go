package policies

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/test/bench/pair"
	"poplin.dev/poplin/test/bench/report"
)

const (
	// settle is how long the kernel is left alone after its table was exchanged:
	// it frees the elements of the last one, and grows hash tables, beside.
	settle = 300 * time.Millisecond
	// connections and streams are made in a turn, of which the one in the middle
	// counts; before them some connections that nobody counts.
	warm, connections, streams = 50, 200, 7
	// stream is how many bytes are sent at once.
	stream = 16 << 20
)

// way is what stands between two pods of the node.
type way struct {
	name string
	set  func() error
	// took is of single connections; turns and streams have one of each turn.
	took, turns, streams []time.Duration
}

// packets takes the table that the daemon left away and puts it back, by
// turns, and has both pods, isolated both ways, talk to each other.
func (l *lab) packets(o Options) ([]way, error) {
	ns, err := os.Open(l.node.Path())
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	table, err := applypermit.Open(applypermit.Config{NetNS: int(ns.Fd()), Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	defer table.Close()
	left, err := table.Program()
	if err != nil {
		return nil, err
	}
	for _, set := range []map[netip.Addr]struct{}{left.Senders, left.Receivers} {
		for _, a := range []netip.Addr{l.pair.Client, l.pair.Server} {
			if _, isolated := set[a]; !isolated {
				return nil, fmt.Errorf("pod %s is not isolated", a)
			}
		}
	}
	put := func(p permit.Program) func() error {
		return func() error { _, err := table.Set(p); return err }
	}
	ways := []way{
		{name: "no table", set: table.Remove},
		{name: "no policy", set: put(permit.New())},
		{name: "policies", set: put(left)},
	}
	to := netip.AddrPortFrom(l.pair.Server, pair.Port)
	for range o.turns() {
		for _, i := range rand.Perm(len(ways)) { // nobody always comes after the same
			w := &ways[i]
			if err := w.set(); err != nil {
				return nil, err
			}
			time.Sleep(settle)
			if _, err := l.pair.Connect(to, warm); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			took, err := l.pair.Connect(to, connections)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			w.took, w.turns = append(w.took, took...), append(w.turns, report.Quantile(took, 0.5))
			var sent []time.Duration
			for range streams {
				once, err := l.pair.Stream(stream)
				if err != nil {
					return nil, fmt.Errorf("%s: %w", w.name, err)
				}
				sent = append(sent, once)
			}
			w.streams = append(w.streams, report.Quantile(sent, 0.5))
		}
	}
	return ways, nil
}
