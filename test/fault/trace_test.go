//go:build e2e

package fault

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/fault/corpus"
	"poplin.dev/poplin/test/live"
)

// probe has requests really made.
const probe = "-probe"

// explanation is what a trace says, as far as tests want to know.
type explanation struct {
	Status, Hop, Node, Cause string
	Hops                     []struct{ Hop, Node, About, Status, Cause string }
	Probe                    []struct{ Result, Why string }
	LastGood                 *struct{ Node, Why string }
	took                     time.Duration
}

func (e explanation) String() string {
	return fmt.Sprintf("%s %s %s: %s (%.1f s)", e.Status, e.Hop, e.Node, e.Cause, e.took.Seconds())
}

// is reports whether a fault was named.
func (e explanation) is(f corpus.Fault) bool { return e.Status == "BROKEN" && e.Hop == f.Hop }

// tracing is the command that traces a case's path.
func tracing(ctx context.Context, t testing.TB, c *cluster.Cluster, of *corpus.Case, mode ...string) *exec.Cmd {
	t.Helper()
	return live.Poplinctl(ctx, t, c, question(of, mode)...)
}

func question(of *corpus.Case, mode []string) []string {
	from, to := of.Ends()
	if of.Path.UDP {
		to += "/udp"
	}
	return append([]string{"trace", from, to, "-family", fmt.Sprint(of.Family()), "-o", "json"}, mode...)
}

// explained is what the tool says about the path of a case.
func explained(t testing.TB, c *cluster.Cluster, of *corpus.Case, mode ...string) (e explanation) {
	t.Helper()
	return answer(t, tracing(t.Context(), t, c, of, mode...))
}

// here is what the tool says to root on the client's node.
func here(t testing.TB, c *cluster.Cluster, of *corpus.Case) explanation {
	t.Helper()
	node := of.Value("NEAR")
	return answer(t, asRoot(t, c, node, question(of, []string{"-node", node})...))
}

// asRoot is the tool in a shell on a node.
func asRoot(t testing.TB, c *cluster.Cluster, node string, args ...string) *exec.Cmd {
	t.Helper()
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := c.Command(t.Context(), node, slices.Concat([]string{root + "/bin/poplinctl"}, args, []string{"-kubeconfig", c.Kubeconfig()})...)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

func answer(t testing.TB, cmd *exec.Cmd) (e explanation) {
	t.Helper()
	begin := time.Now()
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output() // its status is that of the report
	if json.Unmarshal(out, &e) != nil || e.Status == "" {
		t.Fatalf("%v: %v: %s%s", cmd.Args, err, out, stderr.String())
	}
	e.took = time.Since(begin)
	return e
}

// score counts the faults that were named, by hop.
type score struct{ named, all map[string]int }

func newScore() *score { return &score{map[string]int{}, map[string]int{}} }

func (s *score) count(hop string, named bool) {
	s.all[hop]++
	if named {
		s.named[hop]++
	}
}

func (s *score) String() string {
	var b strings.Builder
	for _, hop := range corpus.Hops {
		if s.all[hop] > 0 {
			fmt.Fprintf(&b, "  %-16s %d of %d\n", hop, s.named[hop], s.all[hop])
		}
	}
	return fmt.Sprintf("%d of %d\n%s", sum(s.named), s.total(), b.String())
}

func sum(of map[string]int) (n int) {
	for _, v := range of {
		n += v
	}
	return n
}

func (s *score) total() int  { return sum(s.all) }
func (s *score) missed() int { return sum(s.all) - sum(s.named) }

// durations are of what was done many times.
type durations []time.Duration

func (d durations) String() string {
	if len(d) == 0 {
		return "no time"
	}
	s := slices.Sorted(slices.Values(d))
	return fmt.Sprintf("%v (median of %d), the slowest %v", s[len(s)/2], len(s), s[len(s)-1])
}

// insidePods are the hops that nobody sees who may not look into pods.
var insidePods = []string{"pod-address", "pod-route", "socket"}

// blind fails the test if a trace without the right to look into pods says that
// something in there is right.
func blind(t testing.TB, e explanation) {
	t.Helper()
	for _, h := range e.Hops {
		if slices.Contains(insidePods, h.Hop) && h.Status == "OK" {
			t.Errorf("%s %s is said to be OK, and cannot be seen: %s", h.Hop, h.Node, h.About)
		}
	}
}
