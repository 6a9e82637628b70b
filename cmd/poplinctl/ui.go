package main

import (
	"context"
	"flag"
	"fmt"

	"poplin.dev/poplin/daemon/ui"
)

// page shows the cluster in a browser, until it is interrupted.
func page(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl ui", flag.ContinueOnError)
	c := ui.Config{Say: func(url string) { fmt.Printf("%s\nopen it in a browser on this machine; Ctrl-C ends it\n", url) }}
	f.StringVar(&c.Kubeconfig, "kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	f.StringVar(&c.System, "system-namespace", "", "`namespace` of Poplin's pods; none is where they are found")
	f.StringVar(&c.Address, "address", "127.0.0.1", "`address` of this machine alone: 127.0.0.1 or ::1")
	f.IntVar(&c.Port, "port", 0, "`port` to listen at; 0 is a free one")
	if err := parse(f, args, nil); err != nil {
		return err
	}
	return ui.Run(ctx, c)
}
