// Command demo shows the pod network at work on a running cluster of
// test/cluster: it deploys the example, shows what kubectl shows, has each pod
// ask each other pod, resolves a Service's name, times a pod's start, and opens
// a page through the Ingress in a browser.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/webapp"
)

func main() {
	name := flag.String("name", cluster.DefaultName, "the cluster's name")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, *name)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\nlook around: bin/cluster status --name %s; bin/cluster logs worker-1 --name %s\n", err, *name, *name)
		os.Exit(1)
	}
}

func run(ctx context.Context, name string) error {
	c, err := cluster.Open(name)
	if err != nil {
		return err
	}
	root, err := cluster.ProjectRoot()
	if err != nil {
		return err
	}
	say("deploying web-app, web-service, web-ingress and a probe on every node")
	if err := webapp.Deploy(ctx, c.Kubectl, root); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"get", "nodes", "-o", "wide"},
		{"get", "nodenetworks"},
		{"get", "pods", "-o", "wide"},
		{"get", "svc"},
	} {
		if err := show(ctx, c, args...); err != nil {
			return err
		}
	}
	pods, err := webapp.Pods(ctx, c.Kubectl, "app in (web-app, probe)")
	if err != nil {
		return err
	}
	if err := matrix(ctx, c, pods); err != nil {
		return err
	}
	if err := service(ctx, c, pods[0]); err != nil {
		return err
	}
	if err := startUp(ctx, c); err != nil {
		return err
	}
	if err := edge(ctx, c, root); err != nil {
		return err
	}
	farewell(c, pods[0])
	return nil
}

// farewell says what to look at next, where each command can be typed as it is.
func farewell(c *cluster.Cluster, client webapp.Pod) {
	fmt.Printf(`
All of it works. The cluster goes on running; look around with

  bin/cluster kubectl --name %[1]s -- get pods -A -o wide
  bin/cluster exec worker-1 --name %[1]s -- ip route show proto 157

and ask Poplin itself: how the nodes are, and the way of a request, hop by hop

  export KUBECONFIG=%[2]s
  nsenter --net=%[3]s bin/poplinctl status -cluster
  nsenter --net=%[3]s bin/poplinctl trace pod/%[4]s service/web-service:80

Stop it with

  make demo-down NAME=%[1]s
`, c.Name(), c.Kubeconfig(), c.Namespace(c.Nodes()[0]), client.Name)
}

func say(format string, args ...any) { fmt.Printf("\n== "+format+"\n", args...) }

func show(ctx context.Context, c *cluster.Cluster, args ...string) error {
	fmt.Printf("\n$ kubectl %s\n", strings.Join(args, " "))
	out, err := c.Kubectl(ctx, args...)
	os.Stdout.Write(out)
	return err
}

func matrix(ctx context.Context, c *cluster.Cluster, pods []webapp.Pod) error {
	say("each pod asks each other pod who it is seen as")
	reaches, err := webapp.Matrix(ctx, c.Kubectl, pods)
	if err != nil {
		return err
	}
	bad := 0
	for _, r := range reaches {
		mark := "ok    "
		if !r.OK() {
			mark = "BROKEN"
			bad++
		}
		fmt.Printf("%s  %s\n", mark, r)
	}
	if bad > 0 {
		return fmt.Errorf("%d of %d requests failed", bad, len(reaches))
	}
	fmt.Printf("%d requests, each answered, each seen under the client pod's own address\n", len(reaches))
	return nil
}

// service polls: an endpoint is ready a moment before all nodes know.
func service(ctx context.Context, c *cluster.Cluster, from webapp.Pod) error {
	say("%s on %s asks web-app by every way that Services have: no kube-proxy runs", from.Name, from.Node)
	ways, err := webapp.Ways(ctx, c.Kubectl)
	if err != nil {
		return err
	}
	var answers []string
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(300 * time.Millisecond) {
		if answers, err = webapp.Get(ctx, c.Kubectl, from.Name, ways); err != nil {
			return err
		}
		if !slices.ContainsFunc(answers, func(a string) bool { return !strings.HasPrefix(a, "web-app-") }) {
			for i, w := range ways {
				fmt.Printf("ok      %s answered from %s\n", w, answers[i])
			}
			return nil
		}
	}
	return fmt.Errorf("%q gave %q, not a web-app pod's name each", ways, answers)
}

func startUp(ctx context.Context, c *cluster.Cluster) error {
	const n = 5
	say("how long %d pods take from creation to Ready, one after the other", n)
	var all []time.Duration
	for i := range n {
		d, err := webapp.StartUp(ctx, c.Kubectl, c.KubectlCommand, fmt.Sprintf("stopwatch-%d", i), "registry.k8s.io/e2e-test-images/agnhost:2.63.0")
		if err != nil {
			return err
		}
		all = append(all, d)
	}
	slices.Sort(all)
	fmt.Printf("median %d ms (fastest %d, slowest %d)\n", all[n/2].Milliseconds(), all[0].Milliseconds(), all[n-1].Milliseconds())
	return nil
}
