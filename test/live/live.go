// Package live gives the tests of a package one real cluster. Input is what
// the cluster should be; output is the running one of that name, or a new one
// that goes with the last test. It refuses to take down what it did not start.
package live

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster"
)

// Main runs the tests of m and returns the process' exit status. The cluster
// is that of o, or the one that POPLIN_CLUSTER names; it is made at the first
// call of the function that use receives.
func Main(m *testing.M, o cluster.Options, use func(get func(testing.TB) *cluster.Cluster)) int {
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer cancel()
	o.Output = os.Stderr
	o.Name = cmp.Or(os.Getenv("POPLIN_CLUSTER"), o.Name)
	l := &lazy{ctx: ctx, options: o}
	use(l.get)
	code := m.Run()
	if err := l.close(); err != nil {
		fmt.Fprintln(os.Stderr, "live:", err)
		return 1
	}
	return code
}

// lazy is a cluster that is made when it is first asked for. Tests that ask do
// not run in parallel with each other.
type lazy struct {
	ctx     context.Context
	options cluster.Options
	cluster *cluster.Cluster
	err     error
	ours    bool
}

func (l *lazy) get(t testing.TB) *cluster.Cluster {
	t.Helper()
	if l.cluster == nil && l.err == nil {
		if l.cluster, l.err = cluster.Open(l.options.Name); l.err != nil {
			l.ours = true
			l.cluster, l.err = l.up()
		}
	}
	if l.err != nil {
		t.Fatalf("bring up cluster %s: %v", l.options.Name, l.err)
	}
	return l.cluster
}

// up takes down first what an aborted run may have left.
func (l *lazy) up() (*cluster.Cluster, error) {
	if err := cluster.Down(l.ctx, l.options.Name, os.Stderr); err != nil {
		return nil, err
	}
	return cluster.Up(l.ctx, l.options)
}

func (l *lazy) close() error {
	if !l.ours {
		return nil
	}
	// The tests' context may have ended; the cluster goes all the same.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(l.ctx), time.Minute)
	defer cancel()
	return cluster.Down(ctx, l.options.Name, os.Stderr)
}

// Temporary is a cluster of one test.
func Temporary(t testing.TB, o cluster.Options) *cluster.Cluster {
	t.Helper()
	o.Output = os.Stderr
	l := &lazy{ctx: t.Context(), options: o}
	t.Cleanup(func() {
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	return l.get(t)
}
