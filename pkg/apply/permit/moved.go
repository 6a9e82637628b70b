package permit

import "poplin.dev/poplin/pkg/program/permit"

// movement is the classes that addresses leave by a change, and those they join.
type movement struct{ left, joined map[permit.Class]bool }

// moved reads from a change who moves, and nothing where no pair gets other ports:
// then there is no order to find. What an address outside of Peers has been before,
// or is after, it does not look up: all of what it may have been.
func moved(c permit.Change, held permit.Program) movement {
	if !replaces(c.Delete.Egress, c.Put.Egress) && !replaces(c.Delete.Ingress, c.Put.Ingress) {
		return movement{}
	}
	m := movement{map[permit.Class]bool{}, map[permit.Class]bool{}}
	entered, exited := len(c.Put.Ranges) > 0, len(c.Delete.Ranges) > 0
	for a, class := range c.Delete.Peers {
		m.left[class] = true
		_, stays := c.Put.Peers[a]
		exited = exited || !stays
	}
	for a, class := range c.Put.Peers {
		m.joined[class] = true
		_, was := c.Delete.Peers[a]
		entered = entered || !was
	}
	for _, class := range c.Delete.Ranges {
		m.left[class] = true
	}
	for _, class := range c.Put.Ranges {
		m.joined[class] = true
	}
	if entered {
		m.left[0] = true
	}
	if exited {
		m.joined[0] = true
	}
	for _, class := range held.Ranges {
		m.left[class] = m.left[class] || entered
		m.joined[class] = m.joined[class] || exited
	}
	return m
}

func replaces(del, put map[permit.Pair]permit.Ports) bool {
	for p := range del {
		if _, again := put[p]; again {
			return true
		}
	}
	return false
}

// split tells the pairs of one direction that have to be there before addresses
// move from those that have to wait until they have moved: what an address leaves
// must permit what it did until it has left, and what it joins must permit what it
// will before it comes. A pair that is both left and joined is there before. held
// is what there is after the change, going are pairs in whose place class 0 decides.
func (m movement) split(del, put, held, going map[permit.Pair]permit.Ports) (first, last map[permit.Pair]permit.Ports) {
	if m.left == nil {
		return put, nil
	}
	first, last = make(map[permit.Pair]permit.Ports, len(put)), map[permit.Pair]permit.Ports{}
	// Where there is or was no pair of a class, that of class 0 decides.
	leaves, joins := m.fallback(del, put, held, going)
	for p, ports := range put {
		left, joined := m.left[p.Class], m.joined[p.Class]
		if p.Class == 0 {
			left, joined = left || leaves(p), joined || joins(p)
		}
		if _, replaced := del[p]; replaced && left && !joined {
			last[p] = ports
		} else {
			first[p] = ports
		}
	}
	return first, last
}

// fallback reports of a pod's pair with class 0 whether it is left, or joined, by
// addresses that have another class.
func (m movement) fallback(del, put, held, going map[permit.Pair]permit.Ports) (leaves, joins func(permit.Pair) bool) {
	had := func(p permit.Pair) bool {
		_, before := del[p]
		_, now := held[p]
		_, came := put[p]
		return before || now && !came
	}
	gains, loses := map[permit.Pair]bool{}, map[permit.Pair]bool{}
	for p := range put {
		if _, replaced := del[p]; !replaced && p.Class != 0 {
			gains[permit.Pair{Pod: p.Pod}] = true
		}
	}
	for p := range going {
		loses[permit.Pair{Pod: p.Pod}] = true
	}
	return func(p permit.Pair) bool {
			return gains[p] || some(m.left, func(c permit.Class) bool { return !had(permit.Pair{Pod: p.Pod, Class: c}) })
		}, func(p permit.Pair) bool {
			return loses[p] || some(m.joined, func(c permit.Class) bool {
				_, has := held[permit.Pair{Pod: p.Pod, Class: c}]
				return !has
			})
		}
}

func some(classes map[permit.Class]bool, is func(permit.Class) bool) bool {
	for c, counts := range classes {
		if counts && is(c) {
			return true
		}
	}
	return false
}
