package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/flows"
	"poplin.dev/poplin/pkg/kube/fleet"
	"poplin.dev/poplin/pkg/kube/person"
)

// talk shows who talks to whom, as the nodes' connection tracking has it.
func talk(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl flows", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	nodes := f.String("nodes", "", "`list` of nodes to ask; none is all")
	match := f.String("match", "", "`text` that a name has: a namespace, a pod, a Service, an address")
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for an answer")
	output := outputFlag(f)
	if err := parse(f, args, output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	names, err := namesOf(ctx, *kubeconfig)
	if err != nil {
		return err
	}
	list := strings.FieldsFunc(*nodes, func(r rune) bool { return r == ',' })
	answers, err := fleet.Run(ctx, *kubeconfig, list, []string{"/poplind", "query", "-kinds", string(facts.OfFlows)}, *timeout/2)
	if err != nil {
		return err
	}
	var known [][]facts.Known
	for _, a := range answers {
		var n facts.Node
		if a.Err == nil {
			a.Err = json.Unmarshal(a.Out, &n)
		}
		switch {
		case a.Err != nil:
			fmt.Fprintf(os.Stderr, "node %s is left out: %v\n", a.Node, a.Err)
		case n.Flows == nil || n.Missing[string(facts.OfFlows)] != "":
			fmt.Fprintf(os.Stderr, "node %s does not know: %s\n", a.Node, n.Missing[string(facts.OfFlows)])
		default:
			if len(n.Flows.Known) < n.Flows.Count {
				fmt.Fprintf(os.Stderr, "node %s: %d of %d connections\n", a.Node, len(n.Flows.Known), n.Flows.Count)
			}
			known = append(known, n.Flows.Known)
		}
	}
	rows := flows.Rows(known, names, *match)
	return write(os.Stdout, *output, rows, func(w io.Writer) error { return flows.Text(w, rows) })
}

// namesOf are those of the cluster's addresses.
func namesOf(ctx context.Context, kubeconfig string) (flows.Names, error) {
	c, err := person.New(kubeconfig)
	if err != nil {
		return nil, err
	}
	pods, err := person.List[object.Pod](ctx, c, person.Path("v1", "", "pods", ""), "", "")
	if err != nil {
		return nil, err
	}
	services, err := person.List[object.Service](ctx, c, person.Path("v1", "", "services", ""), "", "")
	if err != nil {
		return nil, err
	}
	nodes, err := person.List[object.Node](ctx, c, person.Path("v1", "", "nodes", ""), "", "")
	if err != nil {
		return nil, err
	}
	names := flows.Names{}
	names.AddNodes(nodes)
	names.AddServices(services)
	names.AddPods(pods)
	return names, nil
}
