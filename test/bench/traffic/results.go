package traffic

import (
	"cmp"
	"fmt"

	"poplin.dev/poplin/test/bench/report"
)

// measure is a figure of a way, and how it is told.
type measure struct {
	index int
	title string
	// less is better: the share is then the limit's figure of the way's.
	less bool
}

// groups are what is told together.
var groups = []struct {
	title    string
	measures []measure
}{
	{"TCP streams, Gbit/s", []measure{{streamOne, "1 stream", false}, {streamFour, "4 streams", false}}},
	{"the processors' time for a byte of them, both ends, ns", []measure{{costOne, "1 stream", true}, {costFour, "4 streams", true}}},
	{"a byte and its answer on one TCP connection, both ends on one processor, us", []measure{{tripHalf, "p50", true}, {tripMost, "p99", true}}},
	{"TCP connections with a byte and its answer, one after the other, both ends on one processor", []measure{
		{connectHalf, "p50 us", true}, {connectRate, "per second", false},
	}},
	{"UDP packets with 18 bytes, as many as one sender can send", []measure{
		{packetRate, "1,000/s", false}, {costPacket, "CPU us each", true},
	}},
}

// share is how much of the limit's speed a way has, of most turns.
func (m measure) share(w, limit *way) report.Figure {
	one, other := w.turns[m.index], limit.turns[m.index]
	if m.less {
		one, other = other, one
	}
	return report.Share(one, other)
}

func tables(ways []*way) (list []report.Table) {
	for _, g := range groups {
		t := report.Table{Title: g.title + "; spread is that of half of the turns, in %", Labels: []string{"", "way", "limit"}}
		for _, m := range g.measures {
			t.Columns = append(t.Columns, m.title, "spread", "of limit", "of bare veth")
		}
		for _, w := range ways {
			row := report.Row{Labels: []string{w.family, w.name, "-"}}
			if w.limit != nil {
				row.Labels[2] = w.limit.name
			}
			for _, m := range g.measures {
				row.Figures = append(row.Figures, report.Median(w.turns[m.index]), report.Spread(w.turns[m.index]), m.share(w, cmp.Or(w.limit, w)), m.share(w, w.bare()))
			}
			t.Rows = append(t.Rows, row)
		}
		list = append(list, t)
	}
	return list
}

// verdicts hold cluster addresses to what is promised of them: a twentieth of
// the pod's own at most.
func verdicts(ways []*way) (list []report.Verdict) {
	for _, w := range ways {
		if !w.promised {
			continue
		}
		for _, m := range []measure{
			{tripHalf, "round trips", true}, {connectHalf, "connections", true}, {costOne, "CPU for a byte", true},
		} {
			list = append(list, report.AtLeast(fmt.Sprintf("%s, %s: %s / %s", w.family, m.title, w.name, w.limit.name), m.share(w, w.limit), 0.95))
		}
	}
	return list
}
