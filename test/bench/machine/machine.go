// Package machine says where and when figures come from, and lets a bench go
// before the machine's other work. It has no inputs; output is a report without
// figures. It refuses to guess: what cannot be read is called unknown.
package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/report"
)

// Describe looks at the machine, and for a while at what else it does.
func Describe() (r report.Report, err error) {
	var u unix.Utsname
	var info unix.Sysinfo_t
	if err := errors.Join(unix.Uname(&u), unix.Sysinfo(&info)); err != nil {
		return r, err
	}
	r.Date, r.CPUs, r.Commit = time.Now().UTC().Format(time.DateOnly), runtime.NumCPU(), "unknown"
	if b, err := exec.Command("git", "describe", "--always", "--dirty").Output(); err == nil {
		r.Commit = strings.TrimSpace(string(b))
	}
	memory := float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	r.Machine = fmt.Sprintf("%s, %d CPUs, %.0f GiB, kernel %s, %s", processor(), r.CPUs, memory, unix.ByteSliceToString(u.Release[:]), runtime.Version())
	r.Others, err = used(2 * time.Second)
	return r, err
}

func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown processor"
}

// used is how many CPUs are busy, while this process is not.
func used(while time.Duration) (float64, error) {
	before, err := idle()
	if err != nil {
		return 0, err
	}
	began := time.Now()
	time.Sleep(while)
	after, err := idle()
	took := time.Since(began)
	return max(0, float64(runtime.NumCPU())-(after-before).Seconds()/took.Seconds()), err
}

// idle is the time that all CPUs have had nothing to do.
func idle() (time.Duration, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	// "cpu", user, nice, system, idle, iowait, in ticks of 10 ms (proc_stat(5)).
	first, _, _ := strings.Cut(string(b), "\n")
	fields := strings.Fields(first)
	if len(fields) < 6 {
		return 0, fmt.Errorf("read /proc/stat: %q has no idle time", first)
	}
	var sum time.Duration
	for _, f := range fields[4:6] {
		n, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read /proc/stat: %w", err)
		}
		sum += time.Duration(n) * 10 * time.Millisecond
	}
	return sum, nil
}
