package main

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/doctor"
	"poplin.dev/poplin/pkg/kube/fleet"
)

// examine has the doctor look at this node, or at others from within their
// daemons' pods.
func examine(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl doctor", flag.ContinueOnError)
	var p doctor.Places
	f.StringVar(&p.Socket, "socket", "/run/poplin/poplind.sock", "`path` of the daemon's socket")
	f.StringVar(&p.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` where the runtime reads network configurations")
	f.StringVar(&p.CNICache, "cache", "/var/lib/cni/results", "`directory` of the container runtime's attachments")
	cluster := f.Bool("cluster", false, "every node, or those of -nodes, from within their daemons' pods")
	nodes := f.String("nodes", "", "`list` of nodes for -cluster")
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for a node")
	output := outputFlag(f)
	if err := parse(f, args, output); err != nil {
		return err
	}
	if *cluster || *nodes != "" {
		list := strings.FieldsFunc(*nodes, func(r rune) bool { return r == ',' })
		return examineNodes(ctx, *kubeconfig, list, *timeout, *output)
	}
	host, _ := os.Hostname() // a name for people
	r := doctor.Run(ctx, cmp.Or(os.Getenv("NODE_NAME"), host), p)
	if err := write(os.Stdout, *output, r, r.Text); err != nil {
		return err
	}
	return verdict([]doctor.Report{r})
}

func examineNodes(ctx context.Context, kubeconfig string, nodes []string, patience time.Duration, output string) error {
	answers, err := fleet.Run(ctx, kubeconfig, nodes, []string{"/poplinctl", "doctor", "-o", "json"}, patience)
	if err != nil {
		return err
	}
	var list []doctor.Report
	for _, a := range answers {
		r := doctor.Report{Node: a.Node}
		// What is broken is no error of the question.
		if err := json.Unmarshal(a.Out, &r); err != nil {
			r.Checks = []doctor.Check{{Name: "node", State: doctor.Unknown, Found: fmt.Sprint("it cannot be examined: ", cmp.Or(a.Err, err))}}
		}
		list = append(list, r)
	}
	list = doctor.Clocks(list)
	if err := write(os.Stdout, output, list, func(w io.Writer) error {
		for _, r := range list {
			fmt.Fprintf(w, "node %s\n", r.Node)
			if err := r.Text(w); err != nil {
				return err
			}
			fmt.Fprintln(w)
		}
		return nil
	}); err != nil {
		return err
	}
	return verdict(list)
}

func verdict(list []doctor.Report) error {
	var ill []string
	for _, r := range list {
		if r.Worst() == doctor.Broken {
			ill = append(ill, r.Node)
		}
	}
	if len(ill) > 0 {
		return problems{"not well: " + strings.Join(ill, ", ")}
	}
	return nil
}
