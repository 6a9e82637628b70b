package overlay

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	"poplin.dev/poplin/pkg/apply/probe"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/overlay"
)

// Checksums is who fills in checksums of encapsulated packets, and why. The
// zero value is a node without a tunnel.
type Checksums struct {
	// Software says that the CPU does, and not the network card.
	Software bool
	// Faulty says that the self-test found the network card to spoil them.
	Faulty bool
	// Why is for people.
	Why string
}

// checksums decides about them. The network card is trusted until a test has
// found it faulty, because the CPU's work costs most of the throughput. What
// a test decided holds as long as the device is the same, and a device that an
// earlier process has left to the CPU stays so until it is made anew, at a
// reboot: testing it again would break connections where the fault is still there.
type checksums struct {
	Checksums
	underlay int  // the device that all of this is about; 0 before the first pass
	decided  bool // there is nothing to be tested, or no longer
	tested   int  // the device that the running test is about; 0 without one
	peer     string
	tests    chan *probe.Checksum
	results  chan probe.Verdict
	log      *slog.Logger
}

func newChecksums(log *slog.Logger) checksums {
	return checksums{tests: make(chan *probe.Checksum, 1), results: make(chan probe.Verdict, 1), log: log}
}

// resolve says what holds for this pass; inSoftware reads the device as it is.
func (c *checksums) resolve(configured string, underlay cluster.Underlay, inSoftware func() (bool, error)) error {
	c.collect(underlay)
	if c.underlay == underlay.Index {
		return nil
	}
	first := c.underlay == 0
	next := Checksums{Why: "the network card's work, not tested yet"}
	switch {
	case configured == "on":
		next.Why = "the network card's work, as configured"
	case configured == "off":
		next = Checksums{Software: true, Why: "the CPU's work, as configured"}
	case first:
		software, err := inSoftware()
		if err != nil {
			return err
		}
		if software {
			next = Checksums{Software: true, Why: "the CPU's work, as found at the start; a reboot has the network card tested again"}
		}
	}
	c.Checksums, c.underlay = next, underlay.Index
	c.decided = configured != "auto" || next.Software
	return nil
}

// collect takes the result of a test that has ended.
func (c *checksums) collect(underlay cluster.Underlay) {
	select {
	case verdict := <-c.results:
		if c.tested == underlay.Index {
			c.judge(verdict, underlay.Link)
		}
		c.tested = 0
	default:
	}
}

func (c *checksums) judge(v probe.Verdict, card string) {
	switch v {
	case probe.Works:
		c.decided, c.Why = true, fmt.Sprintf("the network card's work, tested with node %s", c.peer)
	case probe.Faulty:
		c.decided = true
		c.Checksums = Checksums{Software: true, Faulty: true, Why: fmt.Sprintf(
			"the CPU's work: node %s got wrong ones from %s, whose driver or firmware is at fault", c.peer, card)}
		c.log.Warn("the network card spoils checksums of encapsulated packets, so the CPU fills them in, which costs throughput: update its driver or firmware", "device", card, "tested with", c.peer)
	case probe.Unknown:
		c.Why = fmt.Sprintf("the network card's work, not tested: node %s did not answer", c.peer)
	}
}

// test begins one with any peer behind the tunnel, if one is due. What cannot
// be tested keeps no pod from starting.
func (c *checksums) test(me overlay.Self, peers []cluster.Node) {
	if c.decided || c.tested != 0 || me.NoTunnel {
		return
	}
	for _, i := range rand.Perm(len(peers)) {
		own, its, ok := me.Inner(peers[i])
		if !ok {
			continue
		}
		t, err := probe.NewChecksum(own, its)
		if err != nil {
			c.Why = fmt.Sprintf("the network card's work, not tested: %v", err)
			return
		}
		c.tested, c.peer = me.Underlay.Index, peers[i].Name
		c.tests <- t
		return
	}
}

// run does the tests' waiting beside the passes. One that nobody answered
// rests for a while: the peer may not know of this node yet, or be away.
func (c *checksums) run(ctx context.Context, dirty func()) {
	rest := loop.Backoff{Min: time.Second, Max: time.Minute}
	for {
		select {
		case <-ctx.Done():
			return
		case t := <-c.tests:
			v := t.Run(ctx)
			if v == probe.Unknown {
				select {
				case <-ctx.Done():
					return
				case <-time.After(rest.Next()):
				}
			}
			c.results <- v
			dirty()
		}
	}
}
