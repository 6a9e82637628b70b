// Package process runs a program in a network namespace for a bench, and says
// what it used. Inputs are a namespace and a command; outputs are processor
// time and memory. It refuses to leave anything behind: the program dies with
// the bench, however that ends.
package process

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cni"
)

// Process is a program that runs.
type Process struct {
	Began time.Time

	cmd   *exec.Cmd
	log   string
	ended chan struct{}
}

// Start runs a program in a node's namespace.
func Start(n *cni.Node, log string, env []string, args ...string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	p := &Process{cmd: exec.Command(args[0], args[1:]...), log: log, Began: time.Now(), ended: make(chan struct{})}
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stdout, p.cmd.Stderr = out, out
	// The signal is for the end of the thread that starts it, so that thread
	// stays until the end.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		defer close(p.ended)
		ran := false
		err := n.Do(func() {
			err := p.cmd.Start()
			ran = true
			started <- err
			if err == nil {
				_ = p.cmd.Wait()
			}
		})
		if !ran {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", args[0], err)
	}
	return p, nil
}

// Kill ends the process, whatever it does.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	<-p.ended
}

// Stop asks the process to end.
func (p *Process) Stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		p.Kill()
	}
}

// Alive is an error with the end of the log where the process has ended.
func (p *Process) Alive() error {
	select {
	case <-p.ended:
		text, _ := os.ReadFile(p.log)
		return fmt.Errorf("%s has ended: %s", p.cmd.Args[0], api.LastLines(text, 3))
	default:
		return nil
	}
}

// Usage is what a process has used.
type Usage struct {
	CPU       time.Duration // its own and its children's
	Now, Peak float64       // MB of memory
}

// tick is the unit of /proc/PID/stat, the same on every Linux.
const tick = 10 * time.Millisecond

// processClock makes of a process' number, inverted, the clock that counts the
// time of all its threads, those that have ended too (linux/posix-timers.h).
const processClock = 2 // CPUCLOCK_SCHED

// own is a process' time without its children's, in nanoseconds where
// /proc/PID/stat has ticks.
func own(pid int) (time.Duration, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(int32(^pid<<3|processClock), &t); err != nil {
		return 0, fmt.Errorf("read processor time of process %d: %w", pid, err)
	}
	return time.Duration(t.Nano()), nil
}

// Usage is what it has used until now.
func (p *Process) Usage() (u Usage, err error) {
	cpu, err := own(p.cmd.Process.Pid)
	stat, err1 := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	status, err2 := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err := errors.Join(err, err1, err2); err != nil {
		return u, errors.Join(err, p.Alive())
	}
	u.CPU = cpu
	// Behind the name, which may hold anything: state is field 3, the
	// children's time 16 and 17.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	for _, f := range fields[13:15] {
		n, err := strconv.Atoi(f)
		if err != nil {
			return u, err
		}
		u.CPU += time.Duration(n) * tick
	}
	for line := range strings.Lines(string(status)) {
		key, value, _ := strings.Cut(line, ":")
		kb, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch key {
		case "VmRSS":
			u.Now = kb / 1000
		case "VmHWM":
			u.Peak = kb / 1000
		}
	}
	return u, nil
}
