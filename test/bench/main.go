// Command bench measures Poplin against what it replaces, area by area: each
// has a package below, with its figures and its targets. Inputs are flags;
// outputs are tables, whether targets are met, and JSON. It refuses to compare
// runs: every figure that is put in relation comes from one run, by turns, as
// the machine's speed changes by the minute.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/hosts"
	"poplin.dev/poplin/test/bench/ingress"
	"poplin.dev/poplin/test/bench/machine"
	"poplin.dev/poplin/test/bench/overlay"
	"poplin.dev/poplin/test/bench/page"
	"poplin.dev/poplin/test/bench/pods"
	"poplin.dev/poplin/test/bench/policies"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/bench/scale"
	"poplin.dev/poplin/test/bench/services"
	"poplin.dev/poplin/test/bench/traffic"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// area is one part of the bench; about says for readers what it measures.
type area struct {
	name, about string
	measure     func() (report.Area, error)
}

func run() error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	var cni pods.Options
	flag.IntVar(&cni.Pods, "n", 400, "`pods` per plugin, serially and again at once")
	flag.IntVar(&cni.Parallel, "parallel", 32, "`pods` at once")
	flag.StringVar(&cni.Family, "family", "ipv4", "`family` of the pods' addresses: ipv4, ipv6 or dual")
	flag.StringVar(&cni.Upstream, "upstream", "/usr/lib/cni", "`directory` of upstream's plugins")
	sizes := flag.String("sizes", "", "`list` of Services x endpoints, such as 1000x2,10000x10")
	nodes := flag.String("nodes", "", "`list` of how many nodes there are for scale, such as 100,5000")
	load := flag.String("load", "", "`part` of the names of the loads to measure in ingress, such as HTTP/2")
	quick := flag.Bool("quick", false, "a quarter of the pods; few nodes that join; few Services and few changes")
	areas := []area{
		{"cni", "What a pod pays for its network: CNI ADD and DEL, called as a runtime does, serially and many at once, on an empty node and beside other pods. " +
			"floor is the least that a Go program can do: it makes the same link and keeps no books. \"isolated\" waits until the kernel enforces the pod's policies.",
			func() (report.Area, error) {
				if *quick {
					cni.Pods /= 4
				}
				return pods.Measure(cni)
			}},
		{"overlay", "The daemon on one node of a large cluster, pod network alone, against a real API server that holds the others.",
			func() (report.Area, error) { return overlay.Measure(ctx, overlay.Options{Quick: *quick}) }},
		{"traffic", "What packets pay for their way between namespaces that the plugin and the daemon have programmed, each way beside its limit: " +
			"a veth pair or a VXLAN device between two namespaces with nothing else, or the pod's own address for what leads to it. Upstream's ptp and bridge are on a node that has neither Services nor policies. Shares are of speed: more is better. " +
			"Neither the daemons nor the control plane run meanwhile.",
			func() (report.Area, error) {
				return traffic.Measure(ctx, traffic.Options{Quick: *quick, Upstream: cni.Upstream})
			}},
		{"services", "The daemon and kube-proxy, which serve the same objects of a real API server by turns, each on a node of its own.",
			func() (report.Area, error) {
				return services.Measure(ctx, services.Options{Quick: *quick, Sizes: *sizes})
			}},
		{"policies", "What enforcing policies costs the daemon of a full node, against a real API server, and what it costs packets between two isolated pods.",
			func() (report.Area, error) { return policies.Measure(ctx, policies.Options{Quick: *quick}) }},
		{"scale", "One node among 10 to 5,000, with all that the daemon does, and what all of them ask of a real API server, while kubelets and controllers write as they do in life. docs/scale.md says how.",
			func() (report.Area, error) {
				return scale.Measure(ctx, scale.Options{Quick: *quick, Nodes: *nodes})
			}},
		{"hosts", "poplin-ingress with thousands of hosts, against a real API server: until the first configuration is there, and until a change is live, from its request on.",
			func() (report.Area, error) { return hosts.Measure(ctx, hosts.Options{Quick: *quick}) }},
		{"ingress", "What a request costs in poplin-ingress, with its routing, headers, metrics and limits on, and in nginx and HAProxy as plain reverse proxies. " +
			"Each has one core, its client and the back ends have the other.",
			func() (report.Area, error) { return ingress.Measure(ctx, ingress.Options{Quick: *quick, Load: *load}) }},
	}
	var names []string
	for _, a := range areas {
		names = append(names, a.name)
	}
	only := flag.String("only", strings.Join(names, ","), "`areas` to measure")
	output := flag.String("json", "", "`file` for the figures as JSON")
	text := flag.String("page", "", "measure nothing, but write the page for readers into this `file`, of the files of JSON that are named behind")
	into := flag.String("fill", "", "measure nothing, but put the figures of a file of JSON, which is named behind, into this `page` between its marks")
	flag.Parse()
	if *into != "" {
		return fill(*into, flag.Arg(0))
	}
	if *text != "" {
		b, err := page.Write(flag.Args()...)
		if err != nil {
			return err
		}
		return os.WriteFile(*text, []byte(b), 0o644)
	}
	if flag.NArg() > 0 {
		return fmt.Errorf("unknown argument %q: see -help", flag.Arg(0))
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, to make network namespaces of its own")
	}
	back, err := machine.GoFirst()
	if err != nil {
		return err
	}
	defer back()
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown area %q: want some of %s", name, strings.Join(names, ","))
		}
	}
	return measure(areas, chosen, *quick, *output)
}

// measure prints areas, and writes them into a file of JSON if it has a name.
func measure(areas []area, chosen []string, quick bool, output string) error {
	r, err := machine.Describe()
	if err != nil {
		return err
	}
	r.Quick = quick
	fmt.Printf("%s; others use %.2f CPUs\n", r.Machine, r.Others)
	for _, a := range areas {
		if !slices.Contains(chosen, a.name) {
			continue
		}
		result, failed := a.measure()
		if failed != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", a.name, failed))
			continue
		}
		result.About = a.about
		if err := result.Print(os.Stdout); err != nil {
			return err
		}
		r.Areas = append(r.Areas, result)
		if output != "" { // now, lest a later area takes all with it
			if err := r.Write(output); err != nil {
				return err
			}
		}
	}
	return err
}

// fill puts the figures of a report into a page.
func fill(name, from string) error {
	r, err := page.Read(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	filled, err := page.Fill(string(text), r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return os.WriteFile(name, []byte(filled), 0o644)
}
