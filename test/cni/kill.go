package cni

import (
	"errors"
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// calm is the system calls that leave nothing outside the process, as Go's
// runtime makes them in an order of its own. What is not listed counts.
var calm = map[uint64]bool{
	unix.SYS_FUTEX: true, unix.SYS_MMAP: true, unix.SYS_MUNMAP: true, unix.SYS_MADVISE: true, unix.SYS_MPROTECT: true,
	unix.SYS_PRCTL: true, unix.SYS_BRK: true, unix.SYS_MINCORE: true, unix.SYS_RT_SIGACTION: true,
	unix.SYS_RT_SIGPROCMASK: true, unix.SYS_RT_SIGRETURN: true, unix.SYS_SIGALTSTACK: true, unix.SYS_GETTID: true,
	unix.SYS_GETPID: true, unix.SYS_TGKILL: true, unix.SYS_CLONE: true, unix.SYS_CLONE3: true, unix.SYS_NANOSLEEP: true,
	unix.SYS_SCHED_YIELD: true, unix.SYS_SCHED_GETAFFINITY: true, unix.SYS_SET_ROBUST_LIST: true, unix.SYS_RSEQ: true,
	unix.SYS_CLOCK_GETTIME: true, unix.SYS_PRLIMIT64: true, unix.SYS_GETRANDOM: true, unix.SYS_READ: true,
	unix.SYS_CLOSE: true, unix.SYS_FSTAT: true, unix.SYS_FCNTL: true, unix.SYS_RESTART_SYSCALL: true,
	unix.SYS_EPOLL_CTL: true, unix.SYS_EPOLL_PWAIT: true, unix.SYS_EPOLL_CREATE1: true, unix.SYS_EVENTFD2: true,
	unix.SYS_EXECVE: true, unix.SYS_UNAME: true, unix.SYS_SET_TID_ADDRESS: true, unix.SYS_GETCWD: true,
}

// ExecKilledAt is Exec that ends with SIGKILL just before its step-th system
// call, from 1, of those that could leave something. It reports whether there
// was one. Steps of which every one is taken show what a crash can leave.
func (n *Node) ExecKilledAt(step int, plugin, stdin string, env ...string) (killed bool, err error) {
	cmd := n.command(plugin, stdin, env)
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true}
	var failed error
	// The tracer is a thread: the one that starts it.
	err = n.Do(func() {
		if failed = cmd.Start(); failed == nil {
			killed, failed = trace(cmd.Process.Pid, step)
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // its pipes; trace has seen it end
		}
	})
	return killed, errors.Join(err, failed)
}

// trace follows a process and its threads until they ended.
func trace(pid, step int) (killed bool, err error) {
	const all = unix.WALL | unix.WNOTHREAD
	var status unix.WaitStatus
	if _, err := unix.Wait4(pid, &status, all, nil); err != nil {
		return false, fmt.Errorf("wait for its start: %w", err)
	}
	if err := unix.PtraceSetOptions(pid, unix.PTRACE_O_TRACECLONE|unix.PTRACE_O_TRACESYSGOOD|unix.PTRACE_O_EXITKILL); err != nil {
		return false, fmt.Errorf("set options of ptrace: %w", err)
	}
	for tid := pid; ; {
		signal := 0
		switch stopped := status.Stopped(); {
		case stopped && status.StopSignal() == unix.SIGTRAP|0x80:
			if !killed && entersStep(tid) {
				if step--; step == 0 {
					killed = true
					if err := unix.Kill(pid, unix.SIGKILL); err != nil {
						return false, err
					}
				}
			}
		case stopped && status.StopSignal() != unix.SIGTRAP && status.StopSignal() != unix.SIGSTOP:
			signal = int(status.StopSignal())
		}
		if status.Stopped() {
			// Fails for a thread that is being killed, whose end is still to come.
			_ = unix.PtraceSyscall(tid, signal)
		}
		switch tid, err = unix.Wait4(-1, &status, all, nil); {
		case errors.Is(err, unix.ECHILD):
			return killed, nil
		case errors.Is(err, unix.EINTR):
			status = 0
		case err != nil:
			return killed, fmt.Errorf("wait for a system call: %w", err)
		}
	}
}

// entersStep reports whether a stopped thread is about to make a system call
// that counts (PTRACE_GET_SYSCALL_INFO: 5.3).
func entersStep(tid int) bool {
	const request, entry = 0x420e, 1
	var info struct {
		op   uint8
		_    [3]uint8
		arch uint32
		_, _ uint64 // where it is
		nr   uint64
		_    [6]uint64
		_    [2]uint64
	}
	_, _, errno := unix.Syscall6(unix.SYS_PTRACE, request, uintptr(tid), unsafe.Sizeof(info), uintptr(unsafe.Pointer(&info)), 0, 0)
	return errno == 0 && info.op == entry && !calm[info.nr]
}
