package query

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/netip"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/inspect"
	"poplin.dev/poplin/pkg/apply/observe"
	"poplin.dev/poplin/pkg/apply/request"
	"poplin.dev/poplin/pkg/apply/sandbox"
	"poplin.dev/poplin/pkg/facts"
)

// settle is how long packets may still be on their way when a request has ended.
const settle = 100 * time.Millisecond

// Watch looks out for packets, and makes requests. Once all is in place it says
// so; at a line on in it makes the requests, at the next, or where there are none,
// it says what was seen. Where in ends there is nobody to tell, and it ends too.
func Watch(ctx context.Context, p Places, w facts.Watch, in io.Reader, out io.Writer) error {
	n := &facts.Node{}
	a := answer{Node: n, places: p}
	a.settings = a.readConfig(ctx)
	ctx, cancel := context.WithTimeout(ctx, w.Limit)
	defer cancel()
	lines := make(chan bool)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(in); s.Scan(); {
			select {
			case lines <- true:
			case <-ctx.Done():
				return
			}
		}
	}()
	seen := facts.Watched{Hidden: map[string]string{}, Reasons: map[string]int{}, Counted: map[string]uint64{}}
	watchers := a.watchers(w, &seen)
	before := observe.Reasons()
	e := json.NewEncoder(out)
	err := e.Encode(facts.Watched{Ready: true})
	if len(w.Send) > 0 && err == nil && next(ctx, lines) {
		seen.Outcomes = a.send(ctx, w.Send)
	}
	if w.Live && err == nil {
		awaitFirst(ctx, watchers, lines)
	} else if err == nil {
		next(ctx, lines)
	}
	time.Sleep(settle)
	for name, n := range observe.Reasons() {
		if n > before[name] {
			seen.Reasons[name] = n - before[name]
		}
	}
	for pod, o := range watchers {
		found, counted, errClose := o.Close()
		if errClose != nil {
			seen.Hidden[text(pod)] = errClose.Error()
		}
		for _, s := range found {
			s.Pod = pod
			seen.Sightings = append(seen.Sightings, s)
		}
		for point, n := range counted {
			if !pod.IsValid() {
				seen.Counted[point] = n
			}
		}
	}
	if err != nil {
		return err
	}
	return e.Encode(seen)
}

// next waits for a line.
func next(ctx context.Context, lines <-chan bool) bool {
	select {
	case <-ctx.Done():
		return false
	case more := <-lines:
		return more
	}
}

// flowTime is how long a real connection is followed from its first packet.
const flowTime = 1200 * time.Millisecond

func awaitFirst(ctx context.Context, watchers map[netip.Addr]*observe.Observer, lines <-chan bool) {
	first := make(chan struct{}, len(watchers))
	for _, o := range watchers {
		go func() {
			select {
			case <-o.First():
				first <- struct{}{}
			case <-ctx.Done():
			}
		}()
	}
	select {
	case <-ctx.Done():
	case <-lines: // another node saw one, or nobody waits any more
	case <-first:
		time.Sleep(flowTime)
	}
}

func text(pod netip.Addr) string {
	if !pod.IsValid() {
		return ""
	}
	return pod.String()
}

// watchers are at work on the node, and in pods where that is permitted.
func (a *answer) watchers(w facts.Watch, seen *facts.Watched) map[netip.Addr]*observe.Observer {
	all := map[netip.Addr]*observe.Observer{}
	o, err := observe.Open(w.Flows, w.Overlay)
	if err != nil {
		seen.Hidden[""] = err.Error()
	} else {
		all[netip.Addr{}] = o
	}
	for _, pod := range w.Pods {
		err := a.in(pod, func() (err error) {
			if o, err = observe.Open(w.Flows, w.Overlay); err == nil {
				all[pod] = o
			}
			return err
		})
		if err != nil {
			seen.Hidden[pod.String()] = err.Error()
		}
	}
	return all
}

// in does something in the network namespace of the pod that has an address.
func (a *answer) in(pod netip.Addr, do func() error) error {
	if !a.inspects() {
		return inspect.ErrAccess
	}
	known, err := sandbox.Read(a.places.CNICache)
	if err != nil {
		return err
	}
	report, err := a.addresses()
	if err != nil {
		return err
	}
	for _, x := range report.Addresses {
		for _, t := range known.Attachments {
			if x.Address == pod && x.ContainerID == t.ContainerID && x.IfName == t.IfName && t.NetNS != "" {
				return inspect.In(netnsPath(t.NetNS), do)
			}
		}
	}
	return inspect.ErrAccess
}

// send makes all requests at once.
func (a *answer) send(ctx context.Context, list []facts.Request) []facts.Outcome {
	outcomes := make([]facts.Outcome, len(list))
	var wg sync.WaitGroup
	for i, r := range list {
		wg.Go(func() {
			if !r.Pod.IsValid() {
				outcomes[i] = request.Make(ctx, r)
				return
			}
			err := a.in(r.Pod, func() error {
				outcomes[i] = request.Make(ctx, r)
				return nil
			})
			if err != nil {
				outcomes[i] = facts.Outcome{Request: r, Unsent: true, Error: err.Error()}
			}
		})
	}
	wg.Wait()
	return outcomes
}
