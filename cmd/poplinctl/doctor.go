package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"os"

	"poplin.dev/poplin/daemon/doctor"
)

// examine has the doctor look at this node.
func examine(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl doctor", flag.ContinueOnError)
	var p doctor.Places
	f.StringVar(&p.Socket, "socket", "/run/poplin/poplind.sock", "`path` of the daemon's socket")
	f.StringVar(&p.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` where the runtime reads network configurations")
	f.StringVar(&p.CNICache, "cache", "/var/lib/cni/results", "`directory` of the container runtime's attachments")
	output := outputFlag(f)
	if err := parse(f, args, output); err != nil {
		return err
	}
	host, _ := os.Hostname() // a name for people
	r := doctor.Run(ctx, cmp.Or(os.Getenv("NODE_NAME"), host), p)
	if err := write(os.Stdout, *output, r, r.Text); err != nil {
		return err
	}
	if r.Worst() == doctor.Broken {
		return problems{fmt.Sprintf("node %s is not well", r.Node)}
	}
	return nil
}
