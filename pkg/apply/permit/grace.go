package permit

import (
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program/permit"
)

// barrierGlobal is MEMBARRIER_CMD_GLOBAL of linux/membarrier.h.
const barrierGlobal = 1

// grace ends when every packet has left the rules that was between two lookups
// when it began: the kernel holds its RCU read lock for as long, and membarrier(2)
// of all CPUs waits for that, some milliseconds. A kernel that refuses (nohz_full)
// gets the time itself, of which a packet takes a thousandth unless its CPU stands
// still.
func grace() {
	if _, _, err := unix.Syscall(unix.SYS_MEMBARRIER, barrierGlobal, 0, 0); err != 0 {
		time.Sleep(20 * time.Millisecond)
	}
}

// unled splits the pairs of one direction that go: those that nothing leads to
// once the rest of a change is made, since their class has no address any more or
// their pod is not isolated; and others, in whose place class 0 decides.
func unled(going map[permit.Pair]permit.Ports, isolated map[netip.Addr]struct{}, left map[permit.Class]bool) (unled, others map[permit.Pair]permit.Ports) {
	unled, others = map[permit.Pair]permit.Ports{}, map[permit.Pair]permit.Ports{}
	for p, ports := range going {
		if _, is := isolated[p.Pod]; !is || left[p.Class] {
			unled[p] = ports
		} else {
			others[p] = ports
		}
	}
	return unled, others
}

// left are the classes whose addresses a change takes away, all of them.
func left(c permit.Change, held permit.Program) map[permit.Class]bool {
	list := map[permit.Class]bool{}
	for _, class := range c.Delete.Peers {
		list[class] = true
	}
	for _, class := range c.Delete.Ranges {
		list[class] = true
	}
	if len(list) == 0 {
		return list
	}
	for _, class := range held.Peers {
		delete(list, class)
	}
	for _, class := range held.Ranges {
		delete(list, class)
	}
	return list
}
