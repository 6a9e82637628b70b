// Command bench measures what a pod pays for its network: CNI ADD and DEL,
// one at a time and many at once, for this plugin, for upstream's ptp with
// host-local, and for the least a Go program can do. Inputs are flags; output
// is a table, the ratios and whether they meet the targets. It refuses to
// compare runs: every figure that is put in relation comes from interleaved
// batches of one run, as the machine's speed changes by the minute.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	var o options
	flag.IntVar(&o.n, "n", 400, "`pods` per plugin, serially and again at once")
	flag.IntVar(&o.parallel, "parallel", 32, "`pods` at once")
	flag.StringVar(&o.family, "family", "ipv4", "`family` of the pods' addresses: ipv4, ipv6 or dual")
	flag.StringVar(&o.upstream, "upstream", "/usr/lib/cni", "`directory` of upstream's plugins")
	output := flag.String("json", "", "`file` for the figures as JSON")
	flag.Parse()
	if err := run(o, *output); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(o options, output string) error {
	if os.Geteuid() != 0 {
		return fmt.Errorf("needs root, to make network namespaces of its own")
	}
	report := report{Machine: machine(), Options: fmt.Sprintf("%d pods, %d at once, %s", o.n, o.parallel, o.family)}
	fmt.Println(report.Machine)
	fmt.Println(report.Options)
	var err error
	if report.Rows, err = measure(o); err != nil {
		return err
	}
	report.Verdicts = judge(report.Rows)
	report.print(os.Stdout)
	if output == "" {
		return nil
	}
	b, err := json.MarshalIndent(report, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(output, append(b, '\n'), 0o644)
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
	version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins").Output()
	if err != nil {
		version = []byte("of unknown version")
	}
	return fmt.Sprintf("%s, %d CPUs, kernel %s, %s, containernetworking-plugins %s, load %s",
		cpu, runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]), runtime.Version(), version, strings.Join(strings.Fields(string(load))[:3], " "))
}
