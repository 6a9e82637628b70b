package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"poplin.dev/poplin/daemon"
)

// hangs has one of the daemon's loops hang in a system call: its configuration
// file becomes a pipe that nobody writes to. The node is not ready within ten
// seconds, and the daemon ends within thirty, for the kubelet to start another.
func (m *machine) hangs() {
	t := m.t
	m.configure("")
	ended := make(chan error, 1)
	go func() { ended <- daemon.Run(t.Context(), m.cfg) }()
	m.until("it is ready", func() bool { return m.report().Ready })
	pipe := filepath.Join(m.dir, "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(pipe, m.cfg.File); err != nil {
		t.Fatal(err)
	}
	const due = 6 * time.Second // the file is read every five seconds
	start := time.Now()
	m.until("it is not ready", func() bool {
		code, body := get("http://127.0.0.1:9411/readyz")
		return code == 503 && strings.Contains(body, "progress: waiting: configuration")
	})
	unready := time.Since(start)
	if code, _ := get("http://127.0.0.1:9411/healthz"); code != 200 {
		t.Errorf("slow, and dead at once: %d", code)
	}
	err := <-ended
	dead := time.Since(start)
	t.Logf("a loop that hangs: not ready after %v, ended after %v: %v", unready, dead, err)
	if err == nil || !strings.Contains(err.Error(), "no progress of configuration") {
		t.Errorf("ended with %v", err)
	}
	if unready > due+10*time.Second || dead > due+30*time.Second {
		t.Errorf("not ready after %v, ended after %v", unready, dead)
	}
	m.checkKernel() // and what is there stays

	// The loop that hung is let go, and ends.
	if err := os.WriteFile(m.cfg.File, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(m.cfg.File); err != nil {
		t.Fatal(err)
	}
	m.configure("")
	stop := m.start()
	m.until("another is ready", func() bool { return m.report().Ready })
	if err := stop(); err != nil {
		t.Error(err)
	}
}
