// Package process starts daemons that outlive the program that started them.
// In: a command, a log file, a cgroup. Out: a record of the process by its id
// and its start time, in a file, so that an id that was used again is never
// taken for the process that had it before. It refuses a command without a
// log.
package process

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Spec is a daemon to start.
type Spec struct {
	Name   string
	Args   []string // the first is a program or the path of one
	Env    []string // added to ours
	Log    string   // file that receives its output
	Cgroup *os.File // directory of the cgroup it is born into
}

// Record is a process as it was started.
type Record struct {
	Name  string   `json:"name"`
	PID   int      `json:"pid"`
	Start uint64   `json:"start"` // clock ticks since the machine's boot
	Log   string   `json:"log"`
	Args  []string `json:"args"`
}

// Start runs the daemon in a session of its own. The child is born in its
// cgroup, hence nothing started here can be lost, even if we die before its
// record is saved.
func Start(spec Spec) (Record, error) {
	if spec.Log == "" || len(spec.Args) == 0 {
		return Record{}, fmt.Errorf("start %s: a command and a log file are needed", spec.Name)
	}
	log, err := os.OpenFile(spec.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	defer log.Close()
	cmd := exec.Command(spec.Args[0], spec.Args[1:]...)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), spec.Env...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if spec.Cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(spec.Cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		return Record{}, fmt.Errorf("start %s: %w", spec.Name, err)
	}
	record := Record{Name: spec.Name, PID: cmd.Process.Pid, Log: spec.Log, Args: spec.Args}
	record.Start, _, err = stat(record.PID)
	go func() { _ = cmd.Wait() }() // a starter that lives on must not keep zombies
	if err != nil {
		return record, fmt.Errorf("start %s: it ended at once; see %s", spec.Name, spec.Log)
	}
	return record, nil
}

// Save writes the record down, for Load and List.
func (r Record) Save(dir string) error {
	b, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("save record of %s: %w", r.Name, err)
	}
	path := filepath.Join(dir, r.Name+".json")
	if err := os.WriteFile(path+".new", b, 0o644); err != nil {
		return fmt.Errorf("save record of %s: %w", r.Name, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("save record of %s: %w", r.Name, err)
	}
	return nil
}

// Load reads the record of one process.
func Load(dir, name string) (Record, error) {
	var r Record
	b, err := os.ReadFile(filepath.Join(dir, name+".json"))
	if err != nil {
		return r, fmt.Errorf("read record of %s: %w", name, err)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("read record of %s: %w", name, err)
	}
	return r, nil
}

// List reads all records of a directory, sorted by name.
func List(dir string) ([]Record, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var records []Record
	for _, file := range files {
		r, err := Load(dir, strings.TrimSuffix(filepath.Base(file), ".json"))
		if err != nil {
			return nil, err
		}
		records = append(records, r)
	}
	return records, nil
}

// Forget removes the records of the processes whose names end so.
func Forget(dir, suffix string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*"+suffix+".json"))
	if err != nil {
		return fmt.Errorf("forget processes: %w", err)
	}
	for _, file := range files {
		if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget processes: %w", err)
		}
	}
	return nil
}

// Alive says whether the recorded process, and not a later one with its id,
// still runs.
func (r Record) Alive() bool {
	start, state, err := stat(r.PID)
	return err == nil && start == r.Start && state != 'Z' && state != 'X'
}

// Kill ends the process with SIGKILL, and returns when it is gone.
func (r Record) Kill(ctx context.Context) error {
	for r.Alive() {
		if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("kill %s: %w", r.Name, err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("kill %s: %w", r.Name, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

// stat reads a process' start time and state: fields 22 and 3 of
// /proc/PID/stat (proc(5)). The second field, the program's name, is in
// parentheses and may hold anything, hence the search from the end.
func stat(pid int) (start uint64, state byte, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	fields := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(fields) < 20 {
		return 0, 0, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	start, err = strconv.ParseUint(string(fields[19]), 10, 64)
	return start, fields[0][0], err
}
