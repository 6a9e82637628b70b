package reach

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// Packets are sent in test/netns; this is what is made of the answers.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers map[string]bool
		err     error
		want    string
	}{
		{"alone", nil, nil, ""},
		{"all answer", map[string]bool{"a": true, "b": true}, nil, ""},
		{"one of two is down", map[string]bool{"a": true, "b": false}, nil, ""},
		{"the only other one is down", map[string]bool{"a": false}, nil, ""},
		{"nobody answers", map[string]bool{"a": false, "b": false}, nil, "none of 2 other nodes"},
		{"no way", map[string]bool{"a": true, "b": false}, fmt.Errorf("send to 10.244.1.0: no route to host"), "no route to host"},
	} {
		if got := judge(tt.answers, tt.err); (got == "") != (tt.want == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// Everybody's turn comes, and those that were silent do not wait for it.
func TestTurns(t *testing.T) {
	ways := map[string]Way{}
	for i := range 3*batch + 5 {
		name := fmt.Sprintf("node-%02d", i)
		ways[name] = Way{Node: name, To: netip.MustParseAddr("10.0.0.1")}
	}
	m := New(Deps{})
	seen := map[string]int{}
	for range 4 {
		list := m.next(ways)
		if len(list) != batch {
			t.Fatalf("%d are asked at once", len(list))
		}
		for _, w := range list {
			seen[w.Node]++
			m.answers[w.Node] = true
		}
	}
	if len(seen) != len(ways) {
		t.Errorf("%d of %d had their turn", len(seen), len(ways))
	}
	m.answers["node-40"] = false
	for range 3 {
		if list := m.next(ways); !slices.ContainsFunc(list, func(w Way) bool { return w.Node == "node-40" }) {
			t.Error("the silent one is not asked")
		}
	}
	if list := m.next(nil); len(list) != 0 {
		t.Errorf("nobody is there, and %v are asked", list)
	}
}
