package policies

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	applypermit "poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/test/bench/change"
	"poplin.dev/poplin/test/bench/kernel"
	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
)

// result is what the daemon did with one size.
type result struct {
	size
	// list is what the API server alone takes for the objects; start is from
	// the start of the process to the last transaction, pass what passes over
	// policies took until then.
	list, start, pass time.Duration
	cold              time.Duration // of processor, by then
	// bare is the same daemon without policies, held that with them; both
	// after a while.
	bare, held process.Usage
	// labels are changes of one pod's labels, policies of one policy.
	labels, policies change.Times
}

const (
	metrics = "http://127.0.0.1:9410/metrics"
	limit   = 2 * time.Minute
	// rest is how long the daemon is left alone before its memory is looked at.
	rest = 5 * time.Second
)

// daemon starts poplind on a node where it has nothing in place.
func (l *lab) daemon(enforcing bool) (*process.Process, error) {
	config := filepath.Join(l.Dir, "config.yaml")
	text := fmt.Sprintf("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\ncni: {confDir: %s}\npolicy: {enabled: %v}\n",
		filepath.Join(l.Dir, "state"), enforcing)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	return process.Start(l.node, filepath.Join(l.Dir, "poplind.log"), []string{"NODE_NAME=" + self},
		filepath.Join(l.Dir, "poplind"), "-config", config, "-kubeconfig", l.PKI(pki.AdminKubeconfig),
		"-state-dir", filepath.Join(l.Dir, "state"), "-socket", filepath.Join(l.Dir, "poplind.sock"))
}

// measure runs the daemon without policies, which takes them out of the
// kernel, and then with them.
func (l *lab) measure(ctx context.Context, s size, o Options) (r result, err error) {
	r.size = s
	if r.bare, err = l.bare(ctx); err != nil {
		return r, err
	}
	if r.list, err = l.List(ctx, "/api/v1/pods", "/api/v1/namespaces", "/apis/networking.k8s.io/v1/networkpolicies"); err != nil {
		return r, err
	}
	run, err := l.daemon(true)
	if err != nil {
		return r, err
	}
	defer run.Stop()
	done, err := l.wait(ctx, run, s)
	if err != nil {
		return r, err
	}
	r.start = done.Sub(run.Began)
	took, err := plane.Metric(ctx, l.node, metrics, `poplin_pass_duration_seconds_sum{task="policy"}`)
	if err != nil {
		return r, err
	}
	r.pass = time.Duration(took * float64(time.Second))
	used, err := run.Usage()
	if err != nil {
		return r, err
	}
	r.cold = used.CPU
	if r.labels, err = l.change(ctx, "/api/v1/pods", o.changes(), l.changeLabels); err != nil {
		return r, err
	}
	if r.policies, err = l.change(ctx, "/apis/networking.k8s.io/v1/networkpolicies", o.changes(), l.changePolicy); err != nil {
		return r, err
	}
	time.Sleep(rest)
	r.held, err = run.Usage()
	return r, err
}

// bare is what the daemon uses without policies.
func (l *lab) bare(ctx context.Context) (u process.Usage, err error) {
	run, err := l.daemon(false)
	if err != nil {
		return u, err
	}
	defer run.Stop()
	if err := api.Poll(ctx, limit, "the daemon", func(ctx context.Context) error { return l.tells(ctx, run, "poplin_ready", 1) }); err != nil {
		return u, err
	}
	time.Sleep(rest)
	return run.Usage()
}

// tells is an error unless the daemon's metric is what it should be.
func (l *lab) tells(ctx context.Context, run *process.Process, metric string, want int) error {
	now, err := plane.Metric(ctx, l.node, metrics, metric)
	if err == nil && int(now) != want {
		err = fmt.Errorf("%s is %v, want %d", metric, now, want)
	}
	return errors.Join(run.Alive(), err)
}

// wait returns when the last transaction was, after which all pods of the node
// are isolated and all policies known.
func (l *lab) wait(ctx context.Context, run *process.Process, s size) (last time.Time, err error) {
	k, err := kernel.Open(l.node.Path())
	if err != nil {
		return last, err
	}
	defer k.Close()
	last, err = k.Settled(limit, func() error { return errors.Join(run.Alive(), ctx.Err()) }, func() (bool, error) {
		n, err := k.Elements(unix.NFPROTO_INET, applypermit.Name, "receivers4")
		return n == fullNode, err
	})
	if err != nil {
		return last, err
	}
	return last, l.tells(ctx, run, "poplin_policies", s.policies())
}

// change makes changes, one after the other.
func (l *lab) change(ctx context.Context, of string, n int, next func() change.Step) (change.Times, error) {
	return change.Series{Plane: &l.Plane, Namespace: l.node.Path(), Of: of, N: n, Apart: 20 * time.Millisecond, Next: next}.Make(ctx)
}

// changeLabels has a pod of another node become one of another application,
// or what it was.
func (l *lab) changeLabels() change.Step {
	l.relabelled++
	n, i := rand.IntN(int(l.crowd)), 2
	app := "a0" // which every pod may ask for names
	if l.apps[n] == app {
		app = labels(i)["app"].(string)
	}
	l.apps[n] = app
	mark := fmt.Sprint("m-", l.relabelled)
	return change.Step{About: address(n, i), Shows: strconv.Quote(mark), Make: func(ctx context.Context) error { return l.relabel(ctx, n, i, app, mark) }}
}

// changePolicy has pods of a namespace be reached at another port. The first
// of them on this node is the one to look at.
func (l *lab) changePolicy() change.Step {
	l.rewritten++
	n, port := rand.IntN(int(l.crowd)), 10000+l.rewritten
	return change.Step{About: local(n), Shows: fmt.Sprintf(`"port":%d`, port), Make: func(ctx context.Context) error { return l.rewrite(ctx, n, port) }}
}
