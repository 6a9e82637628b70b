package process

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestStartRecordsAndOutlives(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "log")
	r, err := Start(Spec{Name: "sleeper", Args: []string{"sh", "-c", "echo hello; exec sleep 60"}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(r.PID, syscall.SIGKILL)
	if err := r.Save(dir); err != nil {
		t.Fatal(err)
	}
	list, err := List(dir)
	if err != nil || len(list) != 1 || list[0].PID != r.PID || list[0].Start != r.Start {
		t.Fatalf("List: %+v, %v", list, err)
	}
	if !list[0].Alive() {
		t.Error("not alive")
	}
	reused := list[0]
	reused.Start--
	if reused.Alive() {
		t.Error("a process with the same id but another start time is taken for ours")
	}
	if sid, _, _ := syscall.Syscall(syscall.SYS_GETSID, uintptr(r.PID), 0, 0); int(sid) != r.PID {
		t.Errorf("session %d, want its own", sid)
	}
	wait(t, "its output", func() bool { b, _ := os.ReadFile(log); return string(b) == "hello\n" })
	if err := syscall.Kill(r.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	wait(t, "its end", func() bool { return !r.Alive() })
	if err := Forget(dir, "leeper"); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, "sleeper"); err == nil {
		t.Error("the record is still there")
	}
}

func TestStartRefuses(t *testing.T) {
	for want, spec := range map[string]Spec{
		"a log file are needed": {Name: "x", Args: []string{"true"}},
		"start y":               {Name: "y", Args: []string{"/nonexistent"}, Log: filepath.Join(t.TempDir(), "log")},
	} {
		if _, err := Start(spec); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}

func wait(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}
