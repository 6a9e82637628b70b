// Package connectivity tests a cluster's network from within: it makes pods,
// a Service, a policy and an Ingress in a namespace of its own, has the pods ask
// each other by every way, and removes all of it. Inputs are a kubeconfig and how
// long to wait; output is every check with what became of it. It refuses to leave
// anything behind, also when it is interrupted, and touches nothing of others.
package connectivity

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"poplin.dev/poplin/pkg/apply/echo"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/kube/fleet"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/kube/scratch"
)

const (
	// removing is how long the end may take, also after an interruption.
	removing = 2 * time.Minute
	// patience is with one question.
	patience = 3 * time.Second
	// atOnce bounds the questions of one command.
	atOnce = 200
	// settle is how long Services, names and Ingresses may take to be there
	// once the pods are.
	settle = 30 * time.Second
)

// Test is one run.
type Test struct {
	Kubeconfig string
	// Say gets a line about what is going on.
	Say func(format string, args ...any)
	// Trace says in a line where a request breaks, between a pod of the
	// namespace and an address; nil: nobody is asked.
	Trace func(ctx context.Context, namespace, from, to string) string

	client *person.Client
	// home is the namespace of Poplin's pods.
	home  string
	space *scratch.Client
}

// Run runs the test. An error says that it could not be done; what it found is in
// the checks.
func (t *Test) Run(ctx context.Context) (checks []Check, err error) {
	if t.client, err = person.New(t.Kubeconfig); err != nil {
		return nil, err
	}
	if t.space, err = scratch.New(t.Kubeconfig, label); err != nil {
		return nil, err
	}
	image, err := t.image(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.space.Remove(ctx); err != nil { // of a run that was killed
		return nil, err
	}
	defer func() {
		// Whatever ended the test, and if it was the one who asked for it.
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), removing)
		defer cancel()
		t.Say("removing what was made")
		err = errors.Join(err, t.space.Remove(ctx))
	}()
	name := fmt.Sprintf("poplin-connectivity-%05x", rand.N(1<<20))
	t.Say("making pods in namespace %s, from image %s", name, image)
	if err := t.space.Make(ctx, name, objects(image)); err != nil {
		return nil, err
	}
	s, err := t.await(ctx, name)
	if err != nil {
		return nil, err
	}
	checks = s.plan()
	t.Say("%d pods on %d nodes are ready; %d checks", len(s.pods), len(s.pods), len(checks))
	if err := t.ask(ctx, name, s, checks); err != nil {
		return checks, err
	}
	t.trace(ctx, name, checks)
	return checks, nil
}

// traced bounds how many checks that failed are traced: one of a kind tells of
// the others.
const traced = 5

// trace has the first failure of each kind traced, while its ends are there.
func (t *Test) trace(ctx context.Context, namespace string, checks []Check) {
	seen := map[string]bool{}
	for i := range checks {
		c := &checks[i]
		from, to, ok := c.ends()
		if t.Trace == nil || c.Problem == "" || !ok || seen[c.Kind] || len(seen) == traced {
			continue
		}
		seen[c.Kind] = true
		t.Say("tracing %s to %s", from, to)
		c.Trace = t.Trace(ctx, namespace, from, to)
	}
}

// image is the one that the daemons run: it is on every node.
func (t *Test) image(ctx context.Context) (string, error) {
	type workload struct {
		Spec struct {
			Template struct {
				Spec struct {
					Containers []struct{ Name, Image string }
				}
			}
		}
	}
	pods, err := fleet.Pods(ctx, t.client, "")
	if err != nil {
		return "", err
	}
	t.home = fleet.Home(pods)
	d, err := person.Get[workload](ctx, t.client, person.Path("apps/v1", t.home, "daemonsets", "poplind"))
	if err != nil {
		return "", err
	}
	for _, c := range d.Spec.Template.Spec.Containers {
		if c.Name == "poplind" {
			return c.Image, nil
		}
	}
	return "", errors.New("DaemonSet poplind has no container poplind")
}

// await waits for the pods, and reads the scene.
func (t *Test) await(ctx context.Context, namespace string) (s scene, err error) {
	s.namespace = namespace
	for last := ""; ; {
		wait, err := t.look(ctx, &s)
		if err != nil || wait == "" {
			return s, err
		}
		if wait != last {
			t.Say("waiting for %s", wait)
			last = wait
		}
		select {
		case <-ctx.Done():
			return s, fmt.Errorf("waiting for %s: %w", wait, ctx.Err())
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// look reads what there is, and says what is missing.
func (t *Test) look(ctx context.Context, s *scene) (wait string, err error) {
	set, err := person.Get[struct {
		Status struct {
			Desired int `json:"desiredNumberScheduled"`
		} `json:"status"`
	}](ctx, t.client, person.Path("apps/v1", s.namespace, "daemonsets", "echo"))
	if err != nil {
		return "", err
	}
	pods, err := person.List[object.Pod](ctx, t.client, person.Path("v1", s.namespace, "pods", ""), "", "")
	if err != nil {
		return "", err
	}
	s.pods = nil
	for _, p := range pods {
		switch {
		case !p.Ready():
			return fmt.Sprintf("pod %s on %s", p.Name, cmp.Or(p.Spec.NodeName, "a node")), nil
		case p.Name == guarded:
			s.guarded = p
		case p.Name == friend:
			s.friend = p
		default:
			s.pods = append(s.pods, p)
		}
	}
	if len(s.pods) == 0 || len(s.pods) < set.Status.Desired || s.guarded.Name == "" || s.friend.Name == "" {
		return "pods on every node", nil
	}
	slices.SortFunc(s.pods, func(a, b object.Pod) int { return cmp.Compare(a.Spec.NodeName, b.Spec.NodeName) })
	if s.service, err = person.Get[object.Service](ctx, t.client, person.Path("v1", s.namespace, "services", "echo")); err != nil {
		return "", err
	}
	if s.nodes, err = person.List[object.Node](ctx, t.client, person.Path("v1", "", "nodes", ""), "", ""); err != nil {
		return "", err
	}
	s.edge, err = t.edge(ctx)
	return "", err
}

// edge is where the Ingress proxy is, if there is one.
func (t *Test) edge(ctx context.Context) ([]netip.Addr, error) {
	_, err := person.Get[object.Meta](ctx, t.client, person.Path("networking.k8s.io/v1", "", "ingressclasses", "poplin"))
	if errors.Is(err, person.ErrAbsent) {
		t.Say("there is no IngressClass poplin: Ingresses are not tested")
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	front, err := person.Get[object.Service](ctx, t.client, person.Path("v1", t.home, "services", "poplin-ingress"))
	if errors.Is(err, person.ErrAbsent) {
		t.Say("there is no Service poplin-ingress: Ingresses are not tested")
		return nil, nil
	}
	return front.ClusterIPs(), err
}

// ask has every pod ask its questions. What fails is asked again for a while:
// Services and names follow their pods a moment later.
func (t *Test) ask(ctx context.Context, namespace string, s scene, checks []Check) error {
	deadline := time.Now().Add(settle)
	for {
		if err := t.askOnce(ctx, namespace, s, checks); err != nil {
			return err
		}
		failed := slices.ContainsFunc(checks, func(c Check) bool { return c.Problem != "" })
		if !failed || time.Now().After(deadline) {
			return nil
		}
	}
}

// askOnce asks what has no good answer yet.
func (t *Test) askOnce(ctx context.Context, namespace string, s scene, checks []Check) error {
	var all sync.WaitGroup
	errs := make([]error, len(s.pods)+1)
	for i, from := range append(slices.Clone(s.pods), s.friend) {
		var turn []int
		for j, c := range checks {
			if c.From == about(from) && (c.Problem != "" || !c.asked) {
				turn = append(turn, j)
			}
		}
		if len(turn) == 0 {
			continue
		}
		all.Go(func() {
			for some := range slices.Chunk(turn, atOnce) {
				errs[i] = errors.Join(errs[i], t.askFrom(ctx, namespace, from.Name, checks, some))
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// askFrom asks from one pod the questions of the checks whose turn it is.
func (t *Test) askFrom(ctx context.Context, namespace, pod string, checks []Check, turn []int) error {
	questions := make([]echo.Question, len(turn))
	for i, j := range turn {
		questions[i] = checks[j].Question
	}
	text, err := json.Marshal(questions)
	if err != nil {
		return err
	}
	out, err := t.client.Run(ctx, namespace, pod, "echo", []string{"/poplinctl", "connectivity-test", "ask", "-timeout", patience.String(), "-questions", string(text)})
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return err
	}
	var answers []echo.Answer
	if err := json.Unmarshal(out, &answers); err != nil || len(answers) != len(turn) {
		return fmt.Errorf("pod %s: its %d answers are not understood: %w", pod, len(answers), cmp.Or(err, errors.New("they are too few")))
	}
	for i, j := range turn {
		checks[j].judge(answers[i])
	}
	return nil
}
