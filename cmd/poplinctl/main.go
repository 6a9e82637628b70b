// Command poplinctl shows people what the pod network does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"poplin.dev/poplin/pkg/version"
)

const usage = `usage:
  poplinctl status [flags]    on a node, or in its poplind pod: what this node's daemon does
                              elsewhere, or with -cluster: every node, as the API server shows it
  poplinctl ingress status    what becomes of Ingresses, and of the Secrets with their certificates
  poplinctl ingress migrate   what would become of the Ingresses that ingress-nginx serves
  poplinctl version           say which build this is
`

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "poplinctl:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := "help"
	if len(args) > 0 {
		command, args = args[0], args[1:]
	}
	switch command {
	case "status":
		return status(ctx, args)
	case "ingress":
		return ingresses(ctx, args)
	case "version", "--version", "-version":
		fmt.Println("poplinctl", version.String())
		return nil
	case "help", "--help", "-help", "-h":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("unknown command %q\n%s", command, usage)
}
