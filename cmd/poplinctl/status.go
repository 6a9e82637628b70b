package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"poplin.dev/poplin/daemon/overview"
	daemon "poplin.dev/poplin/daemon/status"
)

func status(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl status", flag.ContinueOnError)
	socket := f.String("socket", "/run/poplin/poplind.sock", "`path` of the daemon's socket")
	cluster := f.Bool("cluster", false, "every node, also where there is a socket")
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	output := outputFlag(f)
	timeout := f.Duration("timeout", 10*time.Second, "how long to wait for an answer")
	if err := parse(f, args, output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	if _, err := os.Stat(*socket); err == nil && !*cluster {
		r, err := daemon.Read(ctx, *socket)
		if err != nil {
			return err
		}
		return write(os.Stdout, *output, r, r.Text)
	}
	if *kubeconfig == "" && !*cluster {
		return fmt.Errorf("there is no daemon at %s and no kubeconfig: run this on a node, in a poplind pod, or give -kubeconfig", *socket)
	}
	nodes, err := overview.Read(ctx, *kubeconfig, *timeout/2)
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, nodes, func(w io.Writer) error { return overview.Text(w, nodes) }); err != nil {
		return err
	}
	if !overview.Well(nodes) {
		return problems{"not every node is well"}
	}
	return nil
}

// defaultKubeconfig is where kubectl would look, if there is one: without it
// a pod's service account is used.
func defaultKubeconfig() string {
	if path := os.Getenv("KUBECONFIG"); path != "" {
		return path
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	path := filepath.Join(home, ".kube", "config")
	if _, err := os.Stat(path); err != nil {
		return ""
	}
	return path
}
