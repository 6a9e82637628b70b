package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/trace"
	"poplin.dev/poplin/pkg/trace/print"
	"poplin.dev/poplin/pkg/trace/way"
)

// firstHop is the exit code of the first class of hops.
const firstHop = 10

// broken is the error of a trace that found the hop.
type broken struct{ report way.Report }

func (b broken) Error() string {
	return fmt.Sprintf("broken at hop %s", b.report.Hop)
}

func (b broken) code() int { return firstHop + slices.Index(way.Classes(), b.report.Hop) }

// follow traces a request.
func follow(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl trace", flag.ContinueOnError)
	c := trace.Config{}
	f.StringVar(&c.Kubeconfig, "kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	f.StringVar(&c.Namespace, "n", "default", "`namespace` of names without one")
	f.StringVar(&c.System, "system-namespace", "", "`namespace` of Poplin's pods; none is where they are found")
	f.IntVar(&c.Family, "family", 0, "4 or 6: this IP family only")
	hereFlag(f, &c)
	f.BoolVar(&c.Probe, "probe", false, "send a real request, and see at each hop what becomes of it")
	f.DurationVar(&c.Live, "live", 0, "wait so `long` for the next real request of this kind, and see what becomes of it")
	verbose := f.Bool("v", false, "show what each hop was found by")
	output := outputFlag(f)
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for all answers")
	ends, args := split(args)
	if err := parse(f, args, output); err != nil {
		return err
	}
	switch len(ends) {
	case 1:
		c.From, c.To = "external", ends[0]
	case 2:
		c.From, c.To = ends[0], ends[1]
	default:
		return fmt.Errorf("write poplinctl trace [FROM] TO, such as poplinctl trace pod/client service/web:80")
	}
	if c.Probe && c.Live > 0 {
		return fmt.Errorf("-probe and -live: choose one")
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout+c.Live)
	defer cancel()
	here(ctx, &c)
	r, err := trace.Run(ctx, c)
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, r, func(w io.Writer) error { return print.Report(w, r, *verbose, colours(os.Stdout)) }); err != nil {
		return err
	}
	if r.Status == way.Broken {
		return broken{r}
	}
	return nil
}

// split takes what is no flag from the beginning.
func split(args []string) (words, rest []string) {
	for i, a := range args {
		if strings.HasPrefix(a, "-") {
			return args[:i], args[i:]
		}
	}
	return args, nil
}

// colours reports whether somebody looks who can see them.
func colours(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0 && os.Getenv("NO_COLOR") == ""
}
