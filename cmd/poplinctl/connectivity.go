package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"poplin.dev/poplin/daemon/connectivity"
	"poplin.dev/poplin/daemon/trace"
	"poplin.dev/poplin/pkg/apply/echo"
	"poplin.dev/poplin/pkg/trace/way"
)

// connect tests the cluster's network from within. Its pods run this program too:
// they serve, and ask.
func connect(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "serve" {
		return serve(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "ask" {
		return answer(ctx, args[1:])
	}
	f := flag.NewFlagSet("poplinctl connectivity-test", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	timeout := f.Duration("timeout", 5*time.Minute, "how long all of it may take")
	output := outputFlag(f)
	if err := parse(f, args, output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	t := connectivity.Test{
		Kubeconfig: *kubeconfig,
		Say:        func(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) },
		Trace: func(ctx context.Context, namespace, from, to string) string {
			r, err := trace.Run(ctx, trace.Config{Kubeconfig: *kubeconfig, Namespace: namespace, From: from, To: to})
			if err != nil {
				return err.Error()
			}
			if r.Status == way.OK {
				return "no hop is found broken"
			}
			return fmt.Sprintf("%s, hop %s: %s; to mend it: %s", r.Status, r.Hop, r.Cause, r.Cure)
		},
	}
	checks, err := t.Run(ctx)
	if errors.Is(err, context.Canceled) {
		return errors.New("interrupted; what was made is removed")
	}
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, checks, func(w io.Writer) error { return connectivity.Text(w, checks) }); err != nil {
		return err
	}
	if n := len(connectivity.Failed(checks)); n > 0 {
		return problems{fmt.Sprintf("%d of %d checks failed", n, len(checks))}
	}
	return nil
}

func serve(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl connectivity-test serve", flag.ContinueOnError)
	address := f.String("address", ":8080", "`address` to listen at")
	if err := parse(f, args, nil); err != nil {
		return err
	}
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	return echo.Serve(ctx, name, *address)
}

func answer(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl connectivity-test ask", flag.ContinueOnError)
	timeout := f.Duration("timeout", 3*time.Second, "how long to wait for one answer")
	text := f.String("questions", "", "`JSON` of what to ask")
	if err := parse(f, args, nil); err != nil {
		return err
	}
	var list []echo.Question
	if err := json.Unmarshal([]byte(*text), &list); err != nil {
		return errors.New("-questions: " + err.Error())
	}
	return json.NewEncoder(os.Stdout).Encode(echo.Ask(ctx, list, *timeout))
}
