package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"poplin.dev/poplin/daemon/overview"
	daemon "poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/fleet"
	"poplin.dev/poplin/pkg/kube/person"
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
	nodes, err := everyNode(ctx, *kubeconfig, *timeout/2)
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

// everyNode asks the API server for the nodes, and each of their daemons, which
// may take as long as patience.
func everyNode(ctx context.Context, kubeconfig string, patience time.Duration) ([]overview.Node, error) {
	c, err := kube.New(kube.Config{Kubeconfig: kubeconfig, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	nodes, err := c.Overview(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	answers, err := ask(ctx, kubeconfig, names, overview.Command(), patience)
	if err != nil {
		return nil, err
	}
	return overview.Join(nodes, answers), nil
}

// ask runs a command in the daemons' pods of nodes; of all of them if none is
// named.
func ask(ctx context.Context, kubeconfig string, nodes, command []string, patience time.Duration) ([]fleet.Answer, error) {
	c, err := person.New(kubeconfig)
	if err != nil {
		return nil, err
	}
	pods, err := fleet.Pods(ctx, c)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		nodes = slices.Sorted(maps.Keys(pods))
	}
	return fleet.Ask(ctx, c, pods, nodes, command, patience), nil
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
