// Package services measures Poplin's Services against kube-proxy in nftables
// mode and in iptables mode: a real etcd and API server, no controllers, and each proxy in a network
// namespace of its own, served the same objects by turns. Inputs are options
// and the programs; outputs are figures and verdicts. It refuses to let both
// proxies run at once, as they would take each other's time.
package services

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cluster/build"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
)

// Options say how much is measured.
type Options struct {
	// Quick is the small sizes, with few changes.
	Quick bool
	// Sizes, such as "1000x2,10000x10", replaces the sizes.
	Sizes string
}

// lab is the control plane and what it holds.
type lab struct {
	plane.Plane
	// crowd is how many objects are in the API server now: the Services
	// numbered from 0. replaced counts endpoints that got another address.
	crowd    size
	replaced int
}

// size is how many Services there are, and how many endpoints each has.
type size struct{ services, endpoints int }

func (s size) String() string { return fmt.Sprintf("%d x %d", s.services, s.endpoints) }

// sizes are, in the order that makes the fewest requests, Services that come,
// get more endpoints, and go.
func (o Options) sizes() (list []size, err error) {
	text := o.Sizes
	switch {
	case text != "":
	case o.Quick:
		text = "1x1000,1000x2,2000x2"
	default:
		text = "1x1000,1000x2,5000x2,10000x2,10000x10,1000x10"
	}
	for part := range strings.SplitSeq(text, ",") {
		var s size
		if n, _ := fmt.Sscanf(part, "%dx%d", &s.services, &s.endpoints); n != 2 || s.services < 1 || s.endpoints < 1 {
			return nil, fmt.Errorf("size %q: want SERVICESxENDPOINTS, such as 1000x2", part)
		}
		list = append(list, s)
	}
	return list, nil
}

// changes is how many endpoints are replaced one by one, and the time between
// two: kube-proxy changes the kernel once a second at most.
func (p *proxy) changes(o Options, s size) (n int, apart time.Duration) {
	switch {
	case p.name == poplin && o.Quick:
		return 100, 20 * time.Millisecond
	case p.name == poplin:
		return 300, 20 * time.Millisecond
	case o.Quick:
		return 8, 1200 * time.Millisecond
	case s.services >= 5000:
		return 6, 1200 * time.Millisecond
	}
	return 10, 1200 * time.Millisecond
}

// rest is how long a process is left alone before its memory is looked at.
func (o Options) rest() time.Duration {
	if o.Quick {
		return 3 * time.Second
	}
	return 5 * time.Second
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	sizes, err := o.sizes()
	if err != nil {
		return report.Area{}, err
	}
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	version, err := exec.Command("iptables", "--version").Output()
	if err != nil {
		return report.Area{}, fmt.Errorf("find iptables, which kube-proxy calls: %w; apt-get install iptables", err)
	}
	a := report.Area{Name: "Services", Options: fmt.Sprintf("kube-proxy %s in nftables mode and, up to %d endpoints, in iptables mode with %s, IPv4, one proxy at a time",
		t.Kubernetes.Version, mostOfIPTables, bytes.TrimSpace(version))}
	l := &lab{}
	defer l.Close()
	if err := steps.Do("control plane", func() error { return l.Up(ctx, t) }); err != nil {
		return a, err
	}
	program := t.Kubernetes.Program(build.Proxy)
	proxies := []*proxy{l.nftables(program), l.iptables(program), l.poplin()}
	for _, p := range proxies {
		if err := l.prepare(ctx, p); err != nil {
			return a, err
		}
	}
	var all results
	for _, s := range sizes {
		if err := steps.Do("objects of "+s.String(), func() error { return l.become(ctx, s) }); err != nil {
			return a, err
		}
		for _, p := range proxies {
			if p.most > 0 && s.services*s.endpoints > p.most {
				continue
			}
			if err := steps.Do(s.String()+" "+p.name, func() error {
				r, err := l.measure(ctx, p, s, o)
				all = append(all, r)
				return err
			}); err != nil {
				return a, err
			}
		}
	}
	a.Tables, a.Verdicts = all.tables(), all.verdicts()
	return a, nil
}
