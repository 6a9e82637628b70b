package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// priority is what the bench has before others, as of nice.
const priority = -10

// autogroup is where the kernel says which share of the processors this session
// has, where sessions have any (sched(7)): a process' own priority counts within
// its session alone then.
const autogroup = "/proc/self/autogroup"

// GoFirst puts this process, with all that it starts, before the machine's other
// work: a p99 would otherwise tell how long one waits for a processor. The shell
// that has started it gains too, until back is called.
func GoFirst() (back func(), err error) {
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	for _, t := range threads {
		id, err := strconv.Atoi(t.Name())
		if err != nil {
			return nil, err
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, id, priority); err != nil && !errors.Is(err, unix.ESRCH) {
			return nil, fmt.Errorf("go before other processes: %w", err)
		}
	}
	before, err := os.ReadFile(autogroup)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(before) == 0 {
		return func() {}, nil // sessions have no shares
	}
	nice, err := sessionNice(string(before))
	if err == nil {
		err = os.WriteFile(autogroup, []byte(strconv.Itoa(min(nice, priority))), 0)
	}
	if err != nil {
		return nil, fmt.Errorf("go before other sessions: %w", err)
	}
	return func() { _ = os.WriteFile(autogroup, []byte(strconv.Itoa(nice)), 0) }, nil // no figure depends on it
}

// sessionNice reads what such a file says: "/autogroup-7 nice 0".
func sessionNice(line string) (int, error) {
	_, nice, ok := strings.Cut(strings.TrimSpace(line), " nice ")
	if !ok {
		return 0, fmt.Errorf("%s: %q names no priority", autogroup, line)
	}
	return strconv.Atoi(nice)
}
