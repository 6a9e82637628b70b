package netns

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	datapath "poplin.dev/poplin/daemon/reach"
	"poplin.dev/poplin/test/await"
)

// TestDataPathIsTested: nodes answer each other through the overlay, one that is
// silent is named and no fault of this node's, and what is this node's own is
// said to be.
func TestDataPathIsTested(t *testing.T) {
	t.Parallel()
	l := newLab(t, dual, 3)
	l.startAll(t)
	n := l.nodes[0]
	ctx, stop := context.WithCancel(t.Context())
	m := datapath.New(datapath.Deps{Report: func(datapath.State) {}, Log: logger(t, n), Every: 2 * time.Second})
	ended := make(chan error, 1)
	go func() { ended <- n.Do(func() error { return m.Run(ctx) }) }()
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	if m.Waiting() == "" {
		t.Error("nobody was asked, and all is well")
	}
	var ways []datapath.Way
	for _, other := range n.state().Others {
		from, to, ok := n.state().Ends(other)
		if !ok {
			t.Fatalf("no way to %s", other.Name)
		}
		ways = append(ways, datapath.Way{Node: other.Name, From: from, To: to})
	}
	m.Set(ways)
	const mute = "add table inet other; add chain inet other in { type filter hook input priority 0; }; add rule inet other in udp dport 33434 drop"
	for _, step := range []struct {
		what    string
		node    int
		rules   string
		silent  []string
		problem string
	}{
		{"all is well", 0, "", nil, ""},
		{"one is silent", 1, mute, []string{"worker-2"}, ""},
		{"both are", 2, mute, []string{"worker-2", "worker-3"}, "none of 2 other nodes"},
		{"one answers again", 1, "delete table inet other", []string{"worker-3"}, ""},
		{"this node keeps its packets", 0, "add table inet other; add chain inet other out { type filter hook output priority 0; }; add rule inet other out udp dport 33434 drop",
			[]string{"worker-2", "worker-3"}, "operation not permitted"},
		{"and lets them go", 0, "delete table inet other", []string{"worker-3"}, ""},
	} {
		if step.rules != "" {
			l.nodes[step.node].nft(t, step.rules)
		}
		await.Success(t, 30*time.Second, func() error {
			s := m.State()
			if s.Ways != 2 || !slices.Equal(s.Silent, step.silent) || (s.Problem == "") != (step.problem == "") || !strings.Contains(s.Problem, step.problem) {
				return fmt.Errorf("%s: %+v", step.what, s)
			}
			return nil
		})
	}
}
