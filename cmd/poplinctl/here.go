package main

import (
	"context"
	"flag"
	"io"
	"sync/atomic"

	"poplin.dev/poplin/daemon/query"
	"poplin.dev/poplin/daemon/trace"
	"poplin.dev/poplin/pkg/facts"
)

// hereFlag names the node on which a command runs, if it is to be read there.
func hereFlag(f *flag.FlagSet, c *trace.Config) {
	f.StringVar(&c.LocalName, "node", "", "read the kernel of this node here, as root on it, and not in its poplind pod: its `name`")
}

// here has that node answer without its daemon's pod.
func here(ctx context.Context, c *trace.Config) {
	if c.LocalName == "" {
		return
	}
	places := query.Places{
		Config: "/etc/poplin/config.yaml", Socket: "/run/poplin/poplind.sock", StateDir: "/var/lib/poplin", CNICache: "/var/lib/cni/results", Inspect: true,
		Silent: &atomic.Bool{},
	}
	c.Local = func(q facts.Question) facts.Node { return query.Run(ctx, places, c.LocalName, q) }
	c.LocalWatch = func(ctx context.Context, w facts.Watch, in io.Reader, out io.Writer) error {
		return query.Watch(ctx, places, w, in, out)
	}
}
