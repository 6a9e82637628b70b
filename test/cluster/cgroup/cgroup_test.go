package cgroup

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"poplin.dev/poplin/test/need"
)

func TestKillAndRemove(t *testing.T) {
	need.Root(t)
	layout, err := Detect()
	if err != nil {
		t.Fatal(err)
	}
	t.Log(layout)
	path := fmt.Sprintf("poplin-cgroup-test-%d", os.Getpid())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := layout.Kill(ctx, path); err != nil {
			t.Error(err)
		}
		if err := layout.Remove(path); err != nil {
			t.Error(err)
		}
		if layout.Exists(path) {
			t.Error("the cgroup is still there")
		}
	})
	if err := layout.Make(path + "/node"); err != nil {
		t.Fatal(err)
	}
	leaf, err := layout.Leaf(path + "/node/daemons")
	if err != nil {
		t.Fatal(err)
	}
	defer leaf.Close()
	// The child of the child is killed with it.
	cmd := exec.Command("sh", "-c", "sleep 60 & wait")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(leaf.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := layout.Kill(ctx, path+"/node"); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err == nil {
		t.Error("the process ended by itself")
	}
}
