package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	daemon "poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/kube"
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
	c, err := kube.New(kube.Config{Kubeconfig: *kubeconfig, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	nodes, err := c.Overview(ctx)
	if err != nil {
		return err
	}
	return write(os.Stdout, *output, nodes, func(w io.Writer) error { return table(w, nodes) })
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

func table(w io.Writer, nodes []kube.NodeStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tREADY\tPOD RANGES\tVTEP\tMAC\tMTU\tPROBLEM")
	for _, n := range nodes {
		if n.MTU == 0 { // nothing published
			fmt.Fprintf(t, "%s\t%v\t-\t-\t-\t-\t%s\n", n.Name, n.Ready, n.Problem)
			continue
		}
		ranges := strings.Trim(fmt.Sprint(n.PodCIDRs), "[]")
		fmt.Fprintf(t, "%s\t%v\t%s\t%s\t%s\t%d\t%s\n", n.Name, n.Ready, ranges, n.VTEP, n.MAC, n.MTU, n.Problem)
	}
	return t.Flush()
}
