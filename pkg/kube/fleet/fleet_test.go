package fleet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// cluster answers for pods by their names.
type cluster map[string]func(context.Context) ([]byte, error)

func (c cluster) Run(ctx context.Context, _, pod, _ string, _ []string) ([]byte, error) {
	return c[pod](ctx)
}

func TestAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, pods, nodes := cluster{}, map[string]Pod{}, []string{}
		add := func(node, phase string, answer func(context.Context) ([]byte, error)) {
			var p Pod
			p.Meta.Name, p.Spec.NodeName, p.Status.Phase = "poplind-"+node, node, phase
			pods[node], c[p.Meta.Name] = p, answer
			nodes = append(nodes, node)
		}
		says := func(context.Context) ([]byte, error) { time.Sleep(time.Second); return []byte("{}"), nil }
		for i := range 2 * atOnce {
			add(fmt.Sprintf("node-%02d", i), "Running", says)
		}
		add("hangs", "Running", func(ctx context.Context) ([]byte, error) { <-ctx.Done(); return nil, ctx.Err() })
		add("fails", "Running", func(context.Context) ([]byte, error) { return []byte("half"), errors.New("exit code 2") })
		add("starts", "Pending", says)
		nodes = append(nodes, "none")
		start := time.Now()
		answers := Ask(t.Context(), c, pods, nodes, []string{"x"}, 5*time.Second)
		if d := time.Since(start); d > 8*time.Second {
			t.Errorf("%v", d)
		}
		want := map[string]string{"hangs": "no answer within 5s", "fails": "exit code 2", "starts": "is pending", "none": "no poplind pod"}
		for i, a := range answers {
			if a.Node != nodes[i] {
				t.Fatalf("%s answers for %s", a.Node, nodes[i])
			}
			if text, bad := want[a.Node]; bad != (a.Err != nil) || bad && !strings.Contains(a.Err.Error(), text) {
				t.Errorf("%s: %v", a.Node, a.Err)
			}
		}
		if i := slices.Index(nodes, "fails"); string(answers[i].Out) != "half" {
			t.Errorf("what it printed is lost: %q", answers[i].Out)
		}
	})
}
