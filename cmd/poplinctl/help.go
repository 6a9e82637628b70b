package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// listing, as a command's first argument, has it say what flags it knows, for
// help, completion and the reference.
const listing = "--flags-of-this"

// listed is what parse returns then.
type listed struct{ flags *flag.FlagSet }

func (listed) Error() string { return "flags are listed" }

// flagsOf are those of a command, or of one of its subcommands.
func flagsOf(c command, sub ...string) *flag.FlagSet {
	var l listed
	if err := c.run(context.Background(), append(sub, listing)); errors.As(err, &l) {
		return l.flags
	}
	return flag.NewFlagSet(c.name, flag.ContinueOnError)
}

// subcommands are the words of which a command wants one, as its usage has them.
func (c command) subcommands() []string {
	first, _, _ := strings.Cut(c.usage, " ")
	if !strings.Contains(first, "|") {
		return nil
	}
	return strings.Split(first, "|")
}

// examples are what people type.
func (c command) examples() []string {
	return map[string][]string{
		"status":            {"status", "status -cluster", "status -cluster -o json"},
		"doctor":            {"doctor", "doctor -cluster", "doctor -nodes worker-1,worker-2 -o json"},
		"ipam":              {"ipam show", "ipam check"},
		"ingress":           {"ingress status", "ingress status -namespaces shop,blog", "ingress migrate"},
		"policy":            {"policy explain -from shop/web -to bank/db:5432", "policy explain -from external -to shop/web:http -o json", "policy test policies/*.yaml expected.yaml"},
		"flows":             {"flows", "flows -match shop/", "flows -nodes worker-1 -o json"},
		"connectivity-test": {"connectivity-test", "connectivity-test -o json"},
		"render":            {"render worker-1", "render worker-1 -show desired", "render -node worker-1"},
		"sysdump":           {"sysdump", "sysdump -f /tmp/bug.tar.gz"},
		"ui":                {"ui", "ui -port 8001"},
		"install":           {"install -print -preset kubeadm | kubectl apply -f -", "install -print -registry registry.example -set config.overlay.mtu=1400"},
		"completion":        {"completion bash > /etc/bash_completion.d/poplinctl", "completion zsh > ~/.zfunc/_poplinctl", "completion fish > ~/.config/fish/completions/poplinctl.fish"},
		"version":           {"version"},
		"trace": {
			"trace pod/client service/web:80", "trace blue/client 10.244.1.7:5432", "trace https://shop.example.com/cart",
			"trace node/n1 service/kube-system/kube-dns:53/udp -family 6", "trace pod/client service/web -o json", "trace pod/client service/web -probe",
			"trace pod/client service/web -live 1m",
		},
	}[c.name]
}

// program is how this one was called: kubectl runs kubectl-poplin as its own
// command.
func program() string {
	if filepath.Base(os.Args[0]) == "kubectl-poplin" {
		return "kubectl poplin"
	}
	return "poplinctl"
}

// wantsHelp says that somebody asks for it, and what comes before.
func wantsHelp(args []string) (before []string, asked bool) {
	at := slices.IndexFunc(args, func(a string) bool { return a == "-h" || a == "-help" || a == "--help" })
	if at < 0 {
		return nil, false
	}
	return args[:at], true
}

// describe is a command's help.
func describe(w io.Writer, c command, args []string) {
	fmt.Fprintf(w, "usage: %s\n\n%s\n", strings.TrimSpace(program()+" "+c.name+" "+c.usage), c.help)
	fmt.Fprintln(w, "\nexamples:")
	for _, e := range c.examples() {
		fmt.Fprintf(w, "  %s %s\n", program(), e)
	}
	subs := c.subcommands()
	if len(args) > 0 && slices.Contains(subs, args[0]) {
		subs = args[:1]
	}
	if len(subs) == 0 {
		flags(w, "flags", flagsOf(c))
	}
	for _, s := range subs {
		flags(w, "flags of "+s, flagsOf(c, s))
	}
}

func flags(w io.Writer, title string, f *flag.FlagSet) {
	some := false
	f.VisitAll(func(*flag.Flag) { some = true })
	if some {
		fmt.Fprintf(w, "\n%s:\n", title)
		f.SetOutput(w)
		f.PrintDefaults()
	}
}
