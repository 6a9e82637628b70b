package ends

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Where a thread runs. Two ends that answer each other share a processor: what
// is measured then is their work, not how long a processor takes to wake. Two
// that work at the same time have one each.
const (
	anywhere byte = iota
	first
	second
)

// processors are those that this process may use.
var processors = sync.OnceValue(func() (list []int) {
	var set unix.CPUSet
	_ = unix.SchedGetaffinity(0, &set)
	for i := 0; len(list) < set.Count(); i++ {
		if set.IsSet(i) {
			list = append(list, i)
		}
	}
	return list
})

// seat is where a thread runs that ends with its function.
type seat byte

// take moves the calling thread, whose seat it is, unless it is there. A
// thread that has moved does not go back to anywhere.
func (s *seat) take(where byte) {
	if where == anywhere || where == byte(*s) {
		return
	}
	*s = seat(where)
	var set unix.CPUSet
	list := processors()
	set.Set(list[int(where-first)%len(list)])
	_ = unix.SchedSetaffinity(0, &set) // a processor that is gone: it runs anywhere
}

// Clock is the processor time that packets have cost: this process', which is
// both ends with what the kernel did on their way, and that of the kernel's
// threads that take over when much arrives.
type Clock struct{ threads []string }

// NewClock finds the threads. Those of another PID namespace are not seen.
func NewClock() (c Clock, err error) {
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return c, err
	}
	for _, name := range names {
		if b, err := os.ReadFile(name); err == nil && strings.HasPrefix(string(b), "ksoftirqd/") {
			c.threads = append(c.threads, filepath.Join(filepath.Dir(name), "schedstat"))
		}
	}
	_, err = c.now()
	return c, err
}

// now is the sum until now.
func (c Clock) now() (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t); err != nil {
		return 0, fmt.Errorf("read processor time: %w", err)
	}
	sum := time.Duration(t.Nano())
	for _, name := range c.threads {
		b, err := os.ReadFile(name)
		if err != nil {
			return 0, err
		}
		text, _, _ := strings.Cut(string(b), " ") // nanoseconds on a processor
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read %s: %w", name, err)
		}
		sum += time.Duration(n)
	}
	return sum, nil
}
