// Package lookout has several nodes look out for the same packets at the same
// time: all are in place before the first request is made, and stop when the last
// has ended. Inputs are what each node is told and a way to talk to it; outputs
// are what each saw, or why not. It refuses to wait for a node that went away.
package lookout

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"poplin.dev/poplin/pkg/facts"
)

// Talk runs one node's part until it ends: it reads lines, and prints
// facts.Watched when it is ready and when it is done.
type Talk func(ctx context.Context, node string, w facts.Watch, in io.Reader, out io.Writer) error

// session is one node that looks out.
type session struct {
	node string
	want facts.Watch
	in   *io.PipeWriter
	out  *json.Decoder
	// err is how talking ended, for who waited for done.
	done chan struct{}
	err  error
}

// results are what several sessions write.
type results struct {
	mu     sync.Mutex
	seen   map[string]facts.Watched
	absent map[string]string
}

// Run does it all.
func Run(ctx context.Context, wants map[string]facts.Watch, talk Talk) (seen map[string]facts.Watched, absent map[string]string) {
	r := results{seen: map[string]facts.Watched{}, absent: map[string]string{}}
	ctx, cancel := context.WithCancel(ctx)
	var all []*session
	for node, w := range wants {
		all = append(all, open(ctx, node, w, talk))
	}
	defer func() {
		for _, s := range all {
			_ = s.in.Close() // a node whose input ends, ends
		}
		cancel()
		for _, s := range all {
			<-s.done
		}
	}()
	ready := r.begin(all)
	sends := func(s *session) bool { return len(s.want.Send) > 0 }
	live := func(s *session) bool { return s.want.Live }
	each(ready, sends, func(s *session) {
		s.say("send")
		s.say("end")
		r.finish(s)
	})
	// Who saw a packet first ends by itself, and then the others do.
	var once sync.Once
	each(ready, live, func(s *session) {
		r.finish(s)
		once.Do(func() {
			for _, o := range ready {
				go o.say("end") // who has ended takes no line
			}
		})
	})
	each(ready, func(s *session) bool { return !sends(s) && !live(s) }, func(s *session) {
		s.say("end")
		r.finish(s)
	})
	return r.seen, r.absent
}

func open(ctx context.Context, node string, w facts.Watch, talk Talk) *session {
	fromHere, in := io.Pipe()
	out, fromThere := io.Pipe()
	s := &session{node: node, want: w, in: in, out: json.NewDecoder(out), done: make(chan struct{})}
	go func() {
		defer close(s.done)
		s.err = talk(ctx, node, w, fromHere, fromThere)
		_ = fromThere.CloseWithError(errors.Join(s.err, io.EOF))
		_ = fromHere.CloseWithError(io.ErrClosedPipe) // nobody reads it any more
	}()
	return s
}

// say tells a node to go on; one that has gone does not hear it.
func (s *session) say(line string) { _, _ = io.WriteString(s.in, line+"\n") }

func each(all []*session, of func(*session) bool, do func(*session)) {
	var wg sync.WaitGroup
	for _, s := range all {
		if of(s) {
			wg.Go(func() { do(s) })
		}
	}
	wg.Wait()
}

// begin waits until everybody is ready, and returns who is.
func (r *results) begin(all []*session) (ready []*session) {
	each(all, func(*session) bool { return true }, func(s *session) {
		var first facts.Watched
		err := s.out.Decode(&first)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.absent[s.node] = err.Error()
		} else {
			ready = append(ready, s)
		}
	})
	return ready
}

// finish reads what a node saw.
func (r *results) finish(s *session) {
	var seen facts.Watched
	err := s.out.Decode(&seen)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.absent[s.node] = fmt.Sprintf("read what it saw: %v", err)
		return
	}
	r.seen[s.node] = seen
}
