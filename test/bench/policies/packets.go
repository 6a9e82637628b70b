package policies

import (
	"errors"
	"fmt"
	"log/slog"
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
	// batch is how many connections are made in a turn, after some that nobody
	// counts.
	batch, warm = 200, 50
	// stream is how many bytes are sent in a turn.
	stream = 64 << 20
)

// way is what stands between two pods of the node.
type way struct {
	name string
	set  func() error
	// took is of single connections, turn of batches of them, streams of
	// streams.
	took, turn, streams []time.Duration
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
		for i := range ways {
			w := &ways[i]
			if err := w.set(); err != nil {
				return nil, err
			}
			time.Sleep(settle)
			if _, err := l.pair.Connect(to, warm); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			took, err1 := l.pair.Connect(to, batch)
			streamed, err2 := l.pair.Stream(stream)
			if err := errors.Join(err1, err2); err != nil {
				return nil, fmt.Errorf("%s: %w", w.name, err)
			}
			w.took, w.turn = append(w.took, took...), append(w.turn, report.Sum(took))
			w.streams = append(w.streams, streamed)
		}
	}
	return ways, nil
}
