package lookout

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"

	"poplin.dev/poplin/pkg/facts"
)

// Requests are made when everybody is ready, and who only watches stops when they
// have ended. A node that cannot be asked does not stop the others.
func TestRun(t *testing.T) {
	var ready, sent atomic.Int32
	talk := func(_ context.Context, node string, w facts.Watch, in io.Reader, out io.Writer) error {
		if node == "gone" {
			return errors.New("no pod there")
		}
		ready.Add(1)
		e, lines := json.NewEncoder(out), bufio.NewScanner(in)
		if err := e.Encode(facts.Watched{Ready: true}); err != nil {
			return err
		}
		if len(w.Send) > 0 {
			lines.Scan()
			if n := ready.Load(); n != 3 {
				t.Errorf("%d are ready when requests are made, want 3", n)
			}
			sent.Add(1)
		}
		lines.Scan()
		if sent.Load() != 1 {
			t.Errorf("node %s ends before the request did", node)
		}
		return e.Encode(facts.Watched{Sightings: []facts.Sighting{{Hook: node}}})
	}
	seen, absent := Run(t.Context(), map[string]facts.Watch{"a": {Send: make([]facts.Request, 1)}, "b": {}, "c": {}, "gone": {}}, talk)
	if len(seen) != 3 || seen["b"].Sightings[0].Hook != "b" || absent["gone"] == "" || len(absent) != 1 {
		t.Errorf("seen %v, absent %v", seen, absent)
	}
}

// The first to see somebody's packet ends the watch of all; where nobody does, the
// end of the context does, and all input ends.
func TestLive(t *testing.T) {
	for _, packet := range []bool{true, false} {
		ctx, cancel := context.WithCancel(t.Context())
		var waiting sync.WaitGroup
		waiting.Add(2)
		talk := func(ctx context.Context, node string, _ facts.Watch, in io.Reader, out io.Writer) error {
			e := json.NewEncoder(out)
			if err := e.Encode(facts.Watched{Ready: true}); err != nil {
				return err
			}
			waiting.Done()
			line := make(chan bool)
			go func() { line <- bufio.NewScanner(in).Scan() }()
			if node == "a" && packet {
				return e.Encode(facts.Watched{Sightings: make([]facts.Sighting, 1)})
			}
			select {
			case <-line:
				return e.Encode(facts.Watched{})
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if !packet {
			go func() { waiting.Wait(); cancel() }()
		}
		seen, absent := Run(ctx, map[string]facts.Watch{"a": {Live: true}, "b": {Live: true}}, talk)
		if packet && (len(seen) != 2 || len(absent) != 0) || !packet && len(absent) != 2 {
			t.Errorf("packet %t: seen %v, absent %v", packet, seen, absent)
		}
		cancel()
	}
}
