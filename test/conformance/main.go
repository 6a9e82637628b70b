// Command conformance runs Kubernetes' own [sig-network] tests, as its module
// holds them, on a cluster of test/cluster that it makes and takes down: those
// of conformance, and of the others the ones about Services that go to what
// conformance leaves out. With -report the results become a page of the
// documentation.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster"
)

const (
	conformance = `\[sig-network\].*\[Conformance\]`
	// beyond is what conformance leaves out: traffic policies, endpoints that
	// end, UDP flows of endpoints that are gone, hints, other proxies'
	// Services; those that take no minute. Two of the suite's about Services
	// cannot hold here: one asks for kube-proxy's own port 10249, one has a
	// node reach pods of others under its underlay address, which no overlay
	// with addresses of its own does.
	beyond = `\[sig-network\] (Services should (allow pods to hairpin|be able to update service type to NodePort|` +
		`be possible to connect to a service via ExternalIP|be rejected|fail health check|` +
		`fallback to (terminating|local terminating.* with external)|implement service\.kubernetes|preserve source pod IP|` +
		`respect internalTrafficPolicy=Local Pod (to|\(host)|serve endpoints on same port and different protocol for|` +
		`support externalTrafficPolicy=Local|support named targetPorts|work after the service has been recreated)|` +
		`Conntrack |Traffic Distribution .*PreferSameNode|Service CIDRs should create)`
	// policies are the suite's tables of who reaches whom, but for those that
	// need SCTP sockets.
	policies = `\[sig-network\] Netpol (\[LinuxOnly\] )?NetworkPolicy between server and client (should|using UDP)`
)

// parts of the suite, as regular expressions on the names of its tests.
var parts = map[string]string{
	"all":                     conformance + "|" + beyond + "|" + policies,
	"conformance":             conformance,
	"beyond":                  beyond,
	"policies":                policies,
	"services-and-networking": `\[sig-network\] (Services|Networking) .*\[Conformance\]`,
}

func main() {
	name := flag.String("name", "conformance", "the cluster's name; one that runs is used and left")
	focus := flag.String("focus", "all", `"all", "conformance", "beyond", "policies", "services-and-networking", or a regular expression on test names`)
	procs := flag.Int("procs", 6, "tests at once; they mostly wait")
	reports := flag.String("reports", "dist/conformance", "where reports go")
	totals := flag.String("totals", "", "append a line `name passed failed skipped seconds` to this file")
	page := flag.String("report", "", "write a `page` of all results, and of ./test/cni's, such as docs/conformance.md; wants the focus all")
	version := flag.String("version", "dev", "Poplin's `version`, for that page")
	flag.Parse()
	if *page != "" && *focus != "all" {
		fmt.Fprintf(os.Stderr, "conformance: -report with -focus=%s: a report is of all; leave -focus out\n", *focus)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	err := run(ctx, options{*name, *focus, *procs, *reports, *totals, *page, *version})
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "conformance:", err)
		os.Exit(1)
	}
}

type options struct {
	name, focus string
	procs       int
	reports     string
	totals      string
	report      string // page to write, if any
	version     string
}

func run(ctx context.Context, o options) (err error) {
	c, err := cluster.Open(o.name)
	if err != nil {
		if err := cluster.Down(ctx, o.name, os.Stdout); err != nil {
			return err
		}
		if c, err = cluster.Up(ctx, cluster.Options{Name: o.name, Network: "poplin", Output: os.Stdout}); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, cluster.Down(context.WithoutCancel(ctx), o.name, os.Stdout)) }()
	}
	start := time.Now()
	out, err := ginkgo(ctx, c, o)
	if o.totals != "" {
		err = errors.Join(err, total(o.totals, out, time.Since(start)))
	}
	if o.report != "" {
		err = errors.Join(err, report(ctx, c, o))
	}
	return err
}

func ginkgo(ctx context.Context, c *cluster.Cluster, o options) ([]byte, error) {
	tools, err := c.Conformance()
	if err != nil {
		return nil, err
	}
	reports, err := filepath.Abs(o.reports)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(reports, 0o755); err != nil {
		return nil, err
	}
	// Results are this run's or none.
	if err := os.RemoveAll(filepath.Join(reports, "junit_01.xml")); err != nil {
		return nil, err
	}
	focus := o.focus
	if part, ok := parts[focus]; ok {
		focus = part
	}
	// The tests' own clients stand where the control plane does.
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+c.Namespace("worker-1"), "--",
		filepath.Join(tools, "ginkgo"), "run", fmt.Sprintf("--procs=%d", o.procs), "--no-color", "--silence-skips",
		"--timeout=60m", "--focus="+focus, `--skip=\[Disruptive\]`, filepath.Join(tools, "e2e.test"), "--",
		"--provider=skeleton", "--kubeconfig="+c.Kubeconfig(), "--kubectl-path="+filepath.Join(tools, "kubectl"),
		"--report-dir="+reports, "--allowed-not-ready-nodes=0", fmt.Sprintf("--num-nodes=%d", len(c.Nodes())), "--disable-log-dump")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+c.Kubeconfig(), "HOME="+reports)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = time.Minute
	log, err := os.Create(filepath.Join(reports, "conformance.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(log, &out)
	cmd.Stderr = cmd.Stdout
	err = cmd.Run()
	text := out.Bytes()
	end := []byte("\nRan ")
	if err != nil {
		end = []byte("\nSummarizing ")
		err = fmt.Errorf("run the tests: %w (whole output in %s)", err, log.Name())
	}
	os.Stdout.Write(text[max(0, bytes.LastIndex(text, end)):])
	return text, err
}

var closing = regexp.MustCompile(`(\d+) Passed \| (\d+) Failed`)

func total(path string, out []byte, took time.Duration) error {
	m := closing.FindSubmatch(out)
	if m == nil {
		m = [][]byte{nil, []byte("0"), []byte("1")}
	}
	if n, _ := strconv.Atoi(string(m[1])); n == 0 && string(m[2]) == "0" {
		return errors.New("no test ran: does the focus fit any name?")
	}
	f, err := os.OpenFile(path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := fmt.Fprintf(f, "conformance %s %s 0 %.0f\n", m[1], m[2], took.Seconds()); err != nil {
		return err
	}
	return f.Close()
}
