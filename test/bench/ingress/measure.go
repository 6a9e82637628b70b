package ingress

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/cluster/api"
)

// sample is what one turn showed.
type sample struct {
	cpu      float64 // microseconds of the proxy for each request
	rate     float64 // requests per second
	p50, p99 float64 // milliseconds
}

var (
	finished  = regexp.MustCompile(`finished in [^,]+, ([0-9.]+) req/s`)
	succeeded = regexp.MustCompile(`([0-9]+) succeeded, ([0-9]+) failed`)
)

// full sends n requests as fast as the proxy takes them.
func (l *lab) full(name string, kind load, n int) (sample, error) {
	before, err := l.running[name].Usage()
	if err != nil {
		return sample{}, err
	}
	out, err := l.h2load(name, kind, append(kind.args[:len(kind.args):len(kind.args)], "-n", strconv.Itoa(n))...)
	if err != nil {
		return sample{}, err
	}
	after, err := l.running[name].Usage()
	if err != nil {
		return sample{}, err
	}
	rate, err := strconv.ParseFloat(string(finished.FindSubmatch(out)[1]), 64)
	return sample{cpu: float64((after.CPU - before.CPU).Microseconds()) / float64(n), rate: rate}, err
}

// warmUp is for what half load does before it is measured: connections are made,
// and keys agreed on, each of which costs as much as a hundred requests.
const warmUp = 300 * time.Millisecond

// half sends requests at one rate, for so long.
func (l *lab) half(name string, kind load, rate int, long time.Duration) (sample, error) {
	conns := 32
	args := []string{"--h1"}
	if kind.args[0] != "--h1" {
		conns, args = 8, []string{"-m16"}
	}
	file := filepath.Join(l.dir, "times")
	if err := os.RemoveAll(file); err != nil {
		return sample{}, err
	}
	args = append(args, fmt.Sprintf("-c%d", conns), fmt.Sprintf("--rps=%d", max(rate/conns, 1)),
		"--warm-up-time="+millis(warmUp), "-D", millis(long), "--log-file="+file)
	if _, err := l.h2load(name, kind, args...); err != nil {
		return sample{}, err
	}
	// Start, status, microseconds.
	b, err := os.ReadFile(file)
	if err != nil {
		return sample{}, err
	}
	var times []float64
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 {
			us, err := strconv.ParseFloat(f[2], 64)
			if err != nil {
				return sample{}, err
			}
			times = append(times, us/1000)
		}
	}
	if len(times) == 0 {
		return sample{}, fmt.Errorf("%s holds no times", file)
	}
	slices.Sort(times)
	return sample{p50: times[len(times)/2], p99: times[len(times)*99/100]}, nil
}

// millis is a duration as h2load reads it.
func millis(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) + "ms" }

func (l *lab) h2load(name string, kind load, args ...string) (out []byte, err error) {
	port := map[string]string{"http": "80", "https": "443"}[kind.scheme]
	args = append([]string{"-c", "1", "h2load", "-t1", "--connect-to=" + addresses[name] + ":" + port}, append(args, kind.scheme+"://"+host+kind.path)...)
	if inErr := l.node.Do(func() { out, err = exec.Command("taskset", args...).CombinedOutput() }); inErr != nil {
		return nil, inErr
	}
	if err != nil {
		return nil, fmt.Errorf("h2load: %w: %s", err, api.LastLines(out, 5))
	}
	m := succeeded.FindSubmatch(out)
	if m == nil || !bytes.Equal(m[2], []byte("0")) || bytes.Equal(m[1], []byte("0")) || finished.FindSubmatch(out) == nil {
		return nil, fmt.Errorf("not all requests succeeded: %s", api.LastLines(out, 5))
	}
	return out, nil
}
