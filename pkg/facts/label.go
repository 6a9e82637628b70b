package facts

import (
	"cmp"
	"slices"
)

// Labels are what rules write on a packet, for others to go by: the mark, which
// rules of routing read, and the zone in which its connection is tracked.
type Labels struct {
	Mark uint32 `json:"mark,omitempty"`
	Zone uint16 `json:"zone,omitempty"`
}

// MarkWrite is how a rule changes the mark: to what was there, as far as Keep
// has its bits, with those of Flip turned over.
type MarkWrite struct {
	Keep uint32 `json:"keep,omitempty"`
	Flip uint32 `json:"flip"`
}

// Label says what the chains of a hook that come before a priority write on a
// packet, and which rule was the last to do so. Rules that may not match write
// nothing.
func Label(chains []Chain, hook string, before int, p Packet) (l Labels, why string) {
	var bases []Chain
	for _, c := range chains {
		if c.Hook == hook && c.Priority < before {
			bases = append(bases, c)
		}
	}
	slices.SortStableFunc(bases, func(a, b Chain) int { return cmp.Compare(a.Priority, b.Priority) })
	for _, base := range bases {
		w := newJudge(chains, base, p)
		w.labels = l
		w.walk(base, 0)
		if w.labels != l {
			l, why = w.labels, w.wrote
		}
	}
	return l, why
}

// write does what a rule says beside its verdict.
func (l Labels) write(r Rule) Labels {
	if r.Mark != nil {
		l.Mark = l.Mark&r.Mark.Keep ^ r.Mark.Flip
	}
	if r.Zone != nil {
		l.Zone = *r.Zone
	}
	return l
}
