// Command bench measures Poplin against what it replaces, area by area: each
// has a package below, with its figures and its targets. Inputs are flags;
// outputs are tables, whether targets are met, and JSON. It refuses to compare
// runs: every figure that is put in relation comes from one run, by turns, as
// the machine's speed changes by the minute.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/hosts"
	"poplin.dev/poplin/test/bench/ingress"
	"poplin.dev/poplin/test/bench/overlay"
	"poplin.dev/poplin/test/bench/pods"
	"poplin.dev/poplin/test/bench/policies"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/bench/services"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// area is one part of the bench.
type area struct {
	name    string
	measure func() (report.Area, error)
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
	quick := flag.Bool("quick", false, "a quarter of the pods; few nodes that join; few Services and few changes")
	areas := []area{
		{"cni", func() (report.Area, error) {
			if *quick {
				cni.Pods /= 4
			}
			return pods.Measure(cni)
		}},
		{"overlay", func() (report.Area, error) { return overlay.Measure(ctx, overlay.Options{Quick: *quick}) }},
		{"services", func() (report.Area, error) {
			return services.Measure(ctx, services.Options{Quick: *quick, Sizes: *sizes})
		}},
		{"policies", func() (report.Area, error) {
			return policies.Measure(ctx, policies.Options{Quick: *quick})
		}},
		{"hosts", func() (report.Area, error) { return hosts.Measure(ctx, hosts.Options{Quick: *quick}) }},
		{"ingress", func() (report.Area, error) { return ingress.Measure(ctx, ingress.Options{Quick: *quick}) }},
	}
	var names []string
	for _, a := range areas {
		names = append(names, a.name)
	}
	only := flag.String("only", strings.Join(names, ","), "`areas` to measure")
	output := flag.String("json", "", "`file` for the figures as JSON")
	flag.Parse()
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, to make network namespaces of its own")
	}
	if err := goFirst(); err != nil {
		return err
	}
	chosen := strings.Split(*only, ",")
	for _, name := range chosen {
		if !slices.Contains(names, name) {
			return fmt.Errorf("unknown area %q: want some of %s", name, strings.Join(names, ","))
		}
	}
	r := report.Report{Machine: machine()}
	fmt.Println(r.Machine)
	for _, a := range areas {
		if !slices.Contains(chosen, a.name) {
			continue
		}
		result, err := a.measure()
		if err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
		if err := result.Print(os.Stdout); err != nil {
			return err
		}
		r.Areas = append(r.Areas, result)
	}
	if *output == "" {
		return nil
	}
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(*output, append(b, '\n'), 0o644)
}

// goFirst puts this process, with all that it starts, before the machine's other
// work: a p99 would otherwise tell how long one waits for a processor.
func goFirst() error {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, -10); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("go before other processes: %w", err)
		}
	}
	return nil
}

// machine says where the figures come from.
func machine() string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	cpu := "unknown processor"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				cpu = strings.TrimSpace(value)
				break
			}
		}
	}
	load, _ := os.ReadFile("/proc/loadavg")
	return fmt.Sprintf("%s, %d CPUs, kernel %s, %s, load %s",
		cpu, runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), strings.Join(strings.Fields(string(load))[:3], " "))
}
