package corpus

import (
	"context"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/test/snapshot"
)

// Same waits until the nodes, pods and the network that a case changes hold
// what they held when they were first looked at.
func (c *Case) Same(ctx context.Context) error {
	return until(ctx, 30*time.Second, func() error {
		for place, name := range c.touched() {
			now, err := c.look(ctx, place)
			if err != nil {
				return err
			}
			before, known := c.lab.before[name]
			if !known {
				c.lab.before[name] = now
			} else if diff := snapshot.Diff(before, now); diff != "" {
				return fmt.Errorf("%s is not as it was:\n%s", name, diff)
			}
		}
		return nil
	})
}

// Known makes sure that what a case changes has been looked at before.
func (c *Case) Known(ctx context.Context) error {
	for _, name := range c.touched() {
		if _, known := c.lab.before[name]; !known {
			return c.Same(ctx)
		}
	}
	return nil
}

// touched are the places of a case's commands and what is there; all places,
// where there is no command. What kubectl changes, it gives back.
func (c *Case) touched() map[string]string {
	all := map[string]string{"near": c.near.name, "far": c.far.name, "client": c.near.client.name, "server": c.far.server.name, "lan": "lan"}
	if len(c.Break) == 0 {
		return all
	}
	maps.DeleteFunc(all, func(place, _ string) bool {
		return !slices.ContainsFunc(slices.Concat(c.Break, c.Twin), func(s Step) bool { return s.Place == place })
	})
	return all
}

// GiveUp takes what there is now for what there should be.
func (c *Case) GiveUp() { clear(c.lab.before) }

func (c *Case) look(ctx context.Context, place string) (snapshot.Snapshot, error) {
	s, err := snapshot.Take(func(args ...string) ([]byte, error) {
		cmd, err := c.command(ctx, place, args...)
		if err != nil {
			return nil, err
		}
		return cmd.Output()
	}, "/etc/cni/net.d", "/var/lib/cni/networks/poplin", "/run/corpus")
	for i, line := range s {
		// A device that is made anew has another number.
		s[i] = number.ReplaceAllString(line, "$1")
		if place == "lan" { // a bridge's timers and counts follow
			s[i], _, _ = strings.Cut(s[i], " promiscuity ")
		}
	}
	slices.Sort(s)
	return slices.DeleteFunc(s, renumbered), err
}

var number = regexp.MustCompile(`^(link: |address: )\d+: `)

// renumbered is what gets other numbers when it is written anew.
func renumbered(line string) bool {
	return strings.HasPrefix(line, "nftables: table inet poplin-services") || strings.HasPrefix(line, "nftables: table inet poplin-policy")
}
