// Command poplinctl shows people what the pod network does. Each command is a
// function in a file of its own; a table of them and the standard library's
// flags do what a framework for command lines would bring a dozen packages for.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

// command is one of poplinctl's.
type command struct {
	name, usage, help string
	run               func(ctx context.Context, args []string) error
}

func commands() []command {
	return []command{
		{"status", "[flags]", "on a node, or in its poplind pod: what this node's daemon does\nelsewhere, or with -cluster: every node at a glance, asked through its daemon's pod", status},
		{"doctor", "[flags]", "on a node, or in its poplind pod: examine the node, and say how to cure what is not well;\nwith -cluster or -nodes: others, through their daemons' pods; exits with 2 where something is broken", examine},
		{"ipam", "show|check [flags]", "on a node, or in its poplind pod: who has which address, and what is wrong;\ncheck exits with 2 where something is", addresses},
		{"ingress", "status|migrate [flags]", "status: what becomes of Ingresses, and of the Secrets with their certificates\nmigrate: what would become of the Ingresses that ingress-nginx serves", ingresses},
		{"policy", "explain|test [flags] [FILE...]", "explain: whether one end may talk to another, and which rule of which policy decides\ntest: the same for expectations in files, without a cluster; both exit with 2 for a no", policies},
		{"render", "NODE [flags]", "what a node holds of overlay, Services and policies, what it should hold, or the difference;\nthe difference exits with 2 where there is one", draw},
		{"flows", "[flags]", "who talks to whom now, by names, from the nodes' connection tracking", talk},
		{"connectivity-test", "[flags]", "test the cluster's network from within: pods, Services, node ports, Ingress, policy, DNS, large\npackets, both families; everything that it makes is removed; exits with 2 where something fails", connect},
		{"sysdump", "[flags]", "write an archive for a bug report: what the API server and every daemon say, without Secrets", sysdump},
		{"trace", "[FROM] TO [flags]", "walk the whole way of a request and name the hop that is broken, with its cure;\nFROM is pod/NAME, node/NAME, an address, or external, which it is without;\nTO is pod/NAME:PORT, service/NAME:PORT, ADDRESS:PORT or a URL; exits with 10 and the\nnumber of the hop in docs/trace.md", follow},
		{"ui", "[flags]", "show the cluster's network in a browser on this machine: nodes, pods, Services, Ingresses and\npolicies as a graph, and traces drawn on it; it only reads, and ends with Ctrl-C", page},
		{"install", "-print [flags]", "print the manifests that install Poplin, from the values of the Helm chart, for those who use\nneither Helm nor kustomize; no cluster is asked", manifests},
		{"completion", "bash|zsh|fish", "print a script that has a shell complete commands and flags", completion},
		{"version", "", "say which build this is", say},
	}
}

// problems is the error of a command that did its work and found some.
type problems struct{ error string }

func (p problems) Error() string { return p.error }

func main() {
	klog.SetLogger(klog.Logger{}) // what a library logs, its errors say as well
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	err := run(ctx, os.Args[1:])
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, "poplinctl:", err)
	if errors.As(err, &problems{}) {
		os.Exit(2)
	}
	if hop := (broken{}); errors.As(err, &hop) {
		os.Exit(hop.code())
	}
	os.Exit(1)
}

func run(ctx context.Context, args []string) error {
	name := "help"
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "help", "--help", "-help", "-h":
		if len(args) > 0 {
			return run(ctx, []string{args[0], "-h"})
		}
		usage(os.Stdout)
		return nil
	case "--version", "-version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name != name {
			continue
		}
		if before, asked := wantsHelp(args); asked {
			describe(os.Stdout, c, before)
			return nil
		}
		return c.run(ctx, args)
	}
	usage(os.Stderr)
	return fmt.Errorf("unknown command %q", name)
}
