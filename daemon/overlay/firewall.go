package overlay

import (
	"slices"

	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/pkg/overlay"
)

// others is what is known of other programs' firewalls.
type others struct {
	foreign.Firewall
	want       foreign.Want
	generation uint32 // of nftables when they were last looked at
	listed     bool   // all their chains were read since the last full look
	blocking   []string
}

// openFirewalls has other programs' firewalls let pods' packets pass, and
// names those that do not.
func (p *pass) openFirewalls(me overlay.Self) error {
	o, conf := &p.others, p.deps.Config
	o.want = foreign.Want{}
	if conf.OpenFirewalls {
		o.want = foreign.Want{Ranges: conf.ClusterCIDRs}
		if !conf.NoTunnel {
			o.want.Link = overlay.Link
		}
		if len(o.want.Ranges) == 0 {
			// What is forwarded to or from another node's pods goes by the device.
			o.want.Ranges = me.PodCIDRs
		}
	}
	if err := p.applyFirewalls(); err != nil || o.listed {
		return err
	}
	blocking, err := o.Blocking()
	if err != nil {
		return err
	}
	o.listed = true
	if !slices.Equal(blocking, o.blocking) && len(blocking) > 0 {
		p.deps.Log.Warn("another program's firewall drops what is forwarded, also to and from pods: let the pods' ranges pass there", "chains", blocking, "ranges", o.want.Ranges)
	}
	o.blocking = blocking
	return nil
}

func (p *pass) applyFirewalls() error {
	o := &p.others
	res, err := o.Set(o.want)
	if err != nil {
		return err
	}
	if !res.Zero() {
		p.deps.Log.Info("changed the rules that let pods' packets pass another program's firewall", "added", res.Added, "removed", res.Removed)
	}
	o.generation, err = o.Generation()
	return err
}

// firewallsHold looks at them again if anybody changed any rule since.
func (p *pass) firewallsHold() error {
	now, err := p.others.Generation()
	if err != nil || now == p.others.generation {
		return err
	}
	return p.applyFirewalls()
}
