package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"time"

	"poplin.dev/poplin/daemon/policy/explain"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/policy/reach"
)

// policies answers questions about who may talk to whom.
func policies(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "explain" {
		return explainPolicy(ctx, args[1:])
	}
	if len(args) > 0 && args[0] == "test" {
		return testPolicies(args[1:])
	}
	return errors.New("which one? poplinctl policy explain, or poplinctl policy test FILE")
}

func explainPolicy(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl policy explain", flag.ContinueOnError)
	from := f.String("from", "", "`end` that opens the connection: NAMESPACE/POD, node/NAME, an address or external")
	to := f.String("to", "", "`end:port` that it opens it to: a number or a port's name, and /udp or /sctp")
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	output := outputFlag(f)
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for the API server")
	if err := parse(f, args, output); err != nil {
		return err
	}
	if *from == "" || *to == "" {
		return errors.New("write -from END and -to END:PORT")
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	objects, err := explain.Read(ctx, kube.Config{Kubeconfig: *kubeconfig, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	answer, err := reach.New(objects).Explain(*from, *to)
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, answer, text(answer)); err != nil || answer.Allowed {
		return err
	}
	return problems{"denied"}
}

func testPolicies(args []string) error {
	f := flag.NewFlagSet("poplinctl policy test", flag.ContinueOnError)
	output := outputFlag(f)
	if err := parseFlags(f, args, output); err != nil {
		return err
	}
	result, err := explain.TestFiles(f.Args())
	if err != nil {
		return err
	}
	if err := write(os.Stdout, *output, result, text(result)); err != nil {
		return err
	}
	if result.Failed > 0 {
		return problems{fmt.Sprintf("%d of %d cases fail", result.Failed, len(result.Cases))}
	}
	return nil
}

// text writes what a value says of itself.
func text(s fmt.Stringer) func(io.Writer) error {
	return func(w io.Writer) error {
		_, err := io.WriteString(w, s.String())
		return err
	}
}
