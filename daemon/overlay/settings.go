package overlay

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/program"
)

// lookAtSettings is how often sysctls are read: the kernel tells nobody when
// one is written, and it should be back within a second.
const lookAtSettings = 750 * time.Millisecond

// tickSettings marks settings dirty, while there is nothing worse to be done.
func (p *pass) tickSettings(ctx context.Context, dirty func()) {
	tick := time.NewTicker(lookAtSettings)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if p.fine.Load() {
				dirty()
			}
		}
	}
}

// settingsHold reports that the overlay's sysctls are as the last pass left
// them, and puts those of the pods' links right.
func (p *pass) settingsHold() (bool, error) {
	links, err := p.pods.List(overlay.PodLinkGroup)
	if err != nil {
		return false, err
	}
	var wrong []program.Sysctl
	tooLarge, settings := 0, overlay.PodSettings()
	for _, l := range links {
		if l.MTU > p.mtu {
			tooLarge++
		}
		for _, s := range settings {
			if now, known := l.Setting(s.Family, s.Name); known && now != s.Value {
				// The link may go at any moment.
				wrong = append(wrong, program.Sysctl{Key: fmt.Sprintf("%s/conf/%s/%s", s.Family, l.Name(), s.Name), Value: strconv.Itoa(s.Value), Optional: true})
			}
		}
	}
	p.countLargePods(tooLarge)
	if len(wrong) > 0 {
		res, err := p.sysctls.Set(wrong)
		if err != nil {
			return false, err
		}
		p.deps.Log.Info("restored sysctls of pods' links", "count", res.Changed, "first", wrong[0])
	}
	if err := p.firewallsHold(); err != nil {
		return false, err
	}
	return p.sysctls.Hold(p.settings), nil
}

// countLargePods says when it changes how many pods were made when the
// overlay's MTU was larger. They learn the smaller one by path MTU discovery,
// unless their applications filter ICMP; a pod made anew has it from the start.
func (p *pass) countLargePods(n int) {
	if n == p.largePods {
		return
	}
	p.largePods = n
	p.deps.Log.Warn("pods have links with a larger MTU than the overlay has now: restart those that stall", "pods", n, "mtu", p.mtu)
}
