// Package change makes single changes in the API server, one after the other,
// and tells how long each took to reach the kernel of a node. Inputs are a
// control plane, the node's namespace and the changes; outputs are times. It
// refuses to make the next one before the last has arrived.
package change

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"poplin.dev/poplin/test/bench/kernel"
	"poplin.dev/poplin/test/bench/plane"
)

// Step is one change: the address that the kernel is told of, what an event
// shows of it, and how it is made.
type Step struct {
	About netip.Addr
	Shows string
	Make  func(ctx context.Context) error
}

// Times have one of each change: API is the call, Watch from another watcher's
// event to the kernel, Full from the start of the call to the kernel.
type Times struct {
	API, Watch, Full []time.Duration
	Bytes            int // that the kernel announced, of all
}

// Series is so many changes of objects of a collection, with the time between
// two.
type Series struct {
	Plane     *plane.Plane
	Namespace string // the file of the node's
	Of        string // path of the collection
	N         int
	Apart     time.Duration
	Next      func() Step
}

// arrival is how long a change may take.
const arrival = 5 * time.Minute

// Make makes them.
func (s Series) Make(ctx context.Context) (t Times, err error) {
	m, err := kernel.Watch(s.Namespace)
	if err != nil {
		return t, err
	}
	defer m.Close()
	events, err := s.Plane.Watch(ctx, s.Of)
	if err != nil {
		return t, err
	}
	defer events.Close()
	for range s.N {
		// Not in step with anybody's clock.
		time.Sleep(s.Apart + rand.N(s.Apart/4))
		step := s.Next()
		began := time.Now()
		seen, done := events.Expect(step.Shows), m.Expect(step.About)
		if err := step.Make(ctx); err != nil {
			return t, err
		}
		t.API = append(t.API, time.Since(began))
		select {
		case k := <-done:
			t.Full = append(t.Full, k.At.Sub(began))
			t.Bytes += k.Bytes
			select {
			case at := <-seen:
				t.Watch = append(t.Watch, k.At.Sub(at))
			case <-time.After(10 * time.Second):
				return t, fmt.Errorf("no event shows %s", step.Shows)
			}
		case <-time.After(arrival):
			return t, fmt.Errorf("the kernel is not told anything about %s", step.About)
		}
	}
	return t, nil
}
