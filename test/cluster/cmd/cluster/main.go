// Command cluster runs a real Kubernetes on this machine: every node is a set of
// namespaces with its own address, runtime and kubelet. `cluster help` lists
// what it does.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"poplin.dev/poplin/pkg/version"
	"poplin.dev/poplin/test/cluster"
)

// command is one of the tool's.
type command struct {
	name, usage, help string
	run               func(ctx context.Context, args arguments) error
}

func commands() []command {
	return []command{
		{"up", "[--nodes 3] [--family dual] [--network poplin] ...", "make a cluster", up},
		{"down", "", "take a cluster down and leave nothing", down},
		{"status", "", "say what runs and which nodes are Ready", status},
		{"kubeconfig", "", "print the administrator's kubeconfig", kubeconfig},
		{"kubectl", "-- ARGUMENTS", "run kubectl against the cluster", kubectl},
		{"exec", "NODE -- COMMAND", "run a command on a node", execute},
		{"node", "stop|start NODE", "switch a node off or on", power},
		{"load-image", "FILE [NAME]", "put the image of an archive on every node, also under NAME", loadImage},
		{"logs", "COMPONENT|NODE", "print logs", logs},
		{"tools", "[--conformance] [--containerd]", "install and build what up needs, and start nothing", gather},
	}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	var ended *exec.ExitError
	switch {
	case err == nil:
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, &ended) && ended.Exited():
		os.Exit(ended.ExitCode()) // of a command that has said why itself
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		usage()
		return errors.New("which command? see above")
	}
	switch args[0] {
	case "help", "-h", "--help":
		usage()
		return nil
	case "version", "--version":
		fmt.Println("cluster", version.String())
		return nil
	}
	for _, c := range commands() {
		if c.name == args[0] {
			return c.run(ctx, arguments{command: c, args: args[1:]})
		}
	}
	usage()
	return fmt.Errorf("there is no command %q; see above", args[0])
}

func usage() {
	fmt.Fprintln(os.Stderr, "usage: cluster COMMAND [--name NAME] ...   (cluster COMMAND --help tells its flags)")
	for _, c := range commands() {
		fmt.Fprintf(os.Stderr, "  %-11s %-52s %s\n", c.name, c.usage, c.help)
	}
}

// arguments are those after a command's name.
type arguments struct {
	command command
	args    []string
}

// parse reads flags wherever they stand before "--", and checks the number of
// the other arguments: from least to most before "--", and whether there must
// be some behind it.
func (a arguments) parse(flags *flag.FlagSet, least, most int, behind bool) (before, after []string, err error) {
	flags.Init("cluster "+a.command.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // what is wrong is said once, by main
	args := a.args
	if i := slices.Index(args, "--"); i >= 0 {
		args, after = args[:i], args[i+1:]
	}
	for {
		if err := flags.Parse(args); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				fmt.Printf("usage: cluster %s %s\n%s\n", a.command.name, a.command.usage, a.command.help)
				flags.SetOutput(os.Stdout)
				flags.PrintDefaults()
				return nil, nil, err
			}
			return nil, nil, fmt.Errorf("read flags of %s: %w; see cluster %s --help", a.command.name, err, a.command.name)
		}
		if flags.NArg() == 0 {
			break
		}
		before, args = append(before, flags.Arg(0)), flags.Args()[1:]
	}
	if len(before) < least || len(before) > most || behind != (len(after) > 0) {
		return nil, nil, fmt.Errorf("usage: cluster %s %s", a.command.name, strings.TrimSpace(a.command.usage))
	}
	return before, after, nil
}

// open parses arguments and finds the cluster they name.
func (a arguments) open(least, most int, behind bool) (c *cluster.Cluster, before, after []string, err error) {
	var flags flag.FlagSet
	name := nameFlag(&flags)
	before, after, err = a.parse(&flags, least, most, behind)
	if err != nil {
		return nil, nil, nil, err
	}
	c, err = cluster.Open(*name)
	return c, before, after, err
}

func nameFlag(flags *flag.FlagSet) *string {
	return flags.String("name", cluster.DefaultName, "name of the cluster")
}
