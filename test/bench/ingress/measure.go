package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// tick is one clock tick of /proc in microseconds (USER_HZ is 100).
const tick = 10_000

type result struct {
	cpu  float64 // microseconds of the proxy for each request
	rate float64 // requests per second
}

var (
	finished  = regexp.MustCompile(`finished in [^,]+, ([0-9.]+) req/s`)
	succeeded = regexp.MustCompile(`([0-9]+) succeeded, ([0-9]+) failed`)
)

// measure sends n requests and reads what they cost.
func (l *lab) measure(name string, kind load, n int) (result, error) {
	before := used(l.pids[name])
	out, err := l.h2load(append(kind.args, "-n", strconv.Itoa(n)), name, kind)
	if err != nil {
		return result{}, err
	}
	spent := (used(l.pids[name]) - before) * tick
	rate, _ := strconv.ParseFloat(finished.FindStringSubmatch(out)[1], 64)
	return result{cpu: spent / float64(n), rate: rate}, nil
}

func (l *lab) h2load(args []string, name string, kind load) (string, error) {
	port := map[string]string{"http": "80", "https": "443"}[kind.scheme]
	url := kind.scheme + "://bench.example.com" + kind.path
	args = append([]string{"-c", "1", "h2load", "-t1", "--connect-to=" + addresses[name] + ":" + port}, append(args, url)...)
	out, err := exec.Command("taskset", args...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, short(out))
	}
	m := succeeded.FindStringSubmatch(string(out))
	if m == nil || m[2] != "0" || m[1] == "0" || finished.FindSubmatch(out) == nil {
		return "", fmt.Errorf("not all requests succeeded: %s", short(out))
	}
	return string(out), nil
}

// latencies compares at one rate for all, which none is stretched by.
func (l *lab) latencies(names []string, scale float64) error {
	const rate, conns = 4000, 16
	kind := loads[0]
	n := int(rate * 5 * scale)
	fmt.Printf("latency at %d requests/s over %d connections, HTTP/1.1, 128 B:", rate, conns)
	for _, name := range names {
		file := filepath.Join(l.dir, name+".times")
		_, err := l.h2load([]string{"--h1", fmt.Sprintf("-c%d", conns), fmt.Sprintf("--rps=%d", rate/conns), "-n", strconv.Itoa(n), "--log-file=" + file}, name, kind)
		if err != nil {
			return err
		}
		p50, p99, err := percentiles(file)
		if err != nil {
			return err
		}
		fmt.Printf("  %s p50 %.2f ms p99 %.2f ms", name, p50, p99)
	}
	fmt.Println()
	return nil
}

// percentiles reads h2load's log: start, status, microseconds.
func percentiles(file string) (p50, p99 float64, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, err
	}
	var list []float64
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			us, _ := strconv.ParseFloat(f[2], 64)
			list = append(list, us/1000)
		}
	}
	if len(list) == 0 {
		return 0, 0, fmt.Errorf("%s holds no times", file)
	}
	slices.Sort(list)
	return list[len(list)/2], list[len(list)*99/100], nil
}
