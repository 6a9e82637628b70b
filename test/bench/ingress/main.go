// Command ingress measures what a request costs in poplin-ingress, nginx and
// HAProxy, as plain reverse proxies in front of the same two back ends, with
// one core each. Inputs are flags and Debian's packages nginx-light, haproxy
// and nghttp2-client; output is CPU time per request, its ratio to nginx's,
// and latency at one rate for all. It refuses to compare runs: rounds are
// interleaved. CPU per request is the figure to look at; requests per second
// and latency move with whatever else the machine does.
package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
)

// load is one kind of request.
type load struct {
	name   string
	scheme string
	path   string
	args   []string // of h2load
	n      int
	target float64 // of nginx's CPU per request
}

var loads = []load{
	{"HTTP/1.1, 128 B", "http", "/small", []string{"--h1", "-c64"}, 60000, 2},
	{"HTTP/1.1, 100 kB", "http", "/large", []string{"--h1", "-c64"}, 15000, 2},
	{"HTTPS keep-alive, 128 B", "https", "/small", []string{"--h1", "-c64"}, 60000, 2},
	{"HTTP/2, 128 B", "https", "/small", []string{"-c8", "-m16"}, 60000, 3},
}

// inside says that this process is the child in its own network namespace.
const inside = "POPLIN_BENCH_INSIDE"

func main() {
	rounds := flag.Int("rounds", 3, "`rounds` over everything; the median counts")
	binary := flag.String("binary", "bin/poplin-ingress", "`program` to measure")
	scale := flag.Float64("scale", 1, "`factor` for the number of requests")
	profile := flag.String("only", "", "measure this `proxy` alone")
	flag.Parse()
	if err := run(*rounds, *binary, *scale, *profile); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(rounds int, binary string, scale float64, only string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, to make a network namespace of its own")
	}
	if os.Getenv(inside) == "" {
		c := exec.Command("/proc/self/exe", os.Args[1:]...)
		c.Env = append(os.Environ(), inside+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
		return c.Run()
	}
	l, err := newLab(binary)
	if err != nil {
		return err
	}
	defer l.close()
	names := []string{"nginx", "haproxy", "poplin"}
	if only != "" {
		names = []string{only}
	}
	b, _ := os.ReadFile("/proc/loadavg")
	fmt.Printf("load average %s", b)
	for _, kind := range loads {
		cpu, rate := map[string][]float64{}, map[string][]float64{}
		for range rounds {
			for _, name := range names {
				m, err := l.measure(name, kind, int(float64(kind.n)*scale))
				if err != nil {
					return fmt.Errorf("measure %s, %s: %w", name, kind.name, err)
				}
				cpu[name], rate[name] = append(cpu[name], m.cpu), append(rate[name], m.rate)
			}
		}
		fmt.Printf("%-26s", kind.name)
		for _, name := range names {
			fmt.Printf("  %s %6.1f us (%6.0f/s)", name, median(cpu[name]), median(rate[name]))
		}
		if only == "" {
			ratio := median(cpu["poplin"]) / median(cpu["nginx"])
			fmt.Printf("  ratio %.2f, target %.1f%s", ratio, kind.target, verdict(ratio <= kind.target))
		}
		fmt.Println()
	}
	return l.latencies(names, scale)
}

func verdict(met bool) string {
	if met {
		return " met"
	}
	return " MISSED"
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func short(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(len(lines)-5, 0):], "\n")
}
