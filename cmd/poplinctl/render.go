package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"poplin.dev/poplin/daemon/render"
	"poplin.dev/poplin/daemon/trace"
)

// draw writes what a node holds, or should hold, or the difference.
func draw(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl render", flag.ContinueOnError)
	c := trace.Config{}
	f.StringVar(&c.Kubeconfig, "kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	f.StringVar(&c.System, "system-namespace", "", "`namespace` of Poplin's pods; none is where they are found")
	what := f.String("show", render.Diff, "`what`: desired, by the compilers that the daemon uses; actual, by the kernel; or diff")
	hereFlag(f, &c)
	output := outputFlag(f)
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for all answers")
	nodes, args := split(args)
	if err := parse(f, args, output); err != nil {
		return err
	}
	if len(nodes) == 0 && c.LocalName != "" {
		nodes = []string{c.LocalName}
	}
	if len(nodes) != 1 || !slices.Contains([]string{render.Desired, render.Actual, render.Diff}, *what) {
		return fmt.Errorf("write poplinctl render NODE, or on it render -node NODE, with -show desired, actual or diff")
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	here(ctx, &c)
	held, desired, memory, err := trace.Whole(ctx, c, nodes[0])
	if err != nil {
		return err
	}
	if memory != nil {
		fmt.Fprintln(os.Stderr, memory.Say(time.Now()))
	}
	layers := render.Layers(held, desired)
	if err := write(os.Stdout, *output, layers, func(w io.Writer) error { return render.Text(w, layers, *what) }); err != nil {
		return err
	}
	if *what == render.Diff && !render.Same(layers) {
		return problems{fmt.Sprintf("node %s does not hold what it should", nodes[0])}
	}
	return nil
}
