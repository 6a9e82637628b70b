package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"poplin.dev/poplin/daemon/ipam"
)

// look is how long what comes and goes may look like a problem.
const look = 2 * time.Second

func addresses(_ context.Context, args []string) error {
	if len(args) == 0 || args[0] != "show" && args[0] != "check" {
		return errors.New("which one? poplinctl ipam show, or poplinctl ipam check")
	}
	f := flag.NewFlagSet("poplinctl ipam "+args[0], flag.ContinueOnError)
	conflist := f.String("conflist", "/etc/cni/net.d/10-poplin.conflist", "`file` with the node's ranges")
	cache := f.String("cache", "/var/lib/cni/results", "`directory` of the container runtime's attachments")
	output := outputFlag(f)
	if err := parse(f, args[1:], output); err != nil {
		return err
	}
	if args[0] == "show" {
		r, err := ipam.Inspect(*conflist, *cache)
		if err != nil {
			return err
		}
		return write(os.Stdout, *output, r, r.Show)
	}
	r, err := ipam.Check(*conflist, *cache, look)
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, r, r.Findings); err != nil {
		return err
	}
	if n := len(r.Problems); n > 0 {
		return problems{fmt.Sprintf("problems with addresses of network %s: %d", r.Network, n)}
	}
	return nil
}
