//go:build e2e

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/cluster/place"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/underlay"
	"poplin.dev/poplin/test/need"
)

// upEnvironment makes this test binary a program that brings up a cluster of
// that name, so that a test can kill it.
const upEnvironment = "POPLIN_TEST_CLUSTER_UP"

func TestMain(m *testing.M) {
	if name := os.Getenv(upEnvironment); name != "" {
		if _, err := Up(context.Background(), small(name)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// small is the cheapest cluster that has everything.
func small(name string) Options {
	return Options{Name: name, Nodes: 1, Network: "none", Output: os.Stdout}
}

// fresh returns a name that no other cluster has, and leaves nothing of it.
func fresh(t *testing.T) string {
	t.Helper()
	need.Root(t)
	name := fmt.Sprintf("test-%d", os.Getpid())
	t.Cleanup(func() {
		if err := Down(context.Background(), name, os.Stdout); err != nil {
			t.Error(err)
		}
		assertNothingLeft(t, name)
	})
	return name
}

// A cluster comes up beside whatever else runs, is found by its name, answers,
// refuses to be made twice, and goes.
func TestLife(t *testing.T) {
	name := fresh(t)
	if _, err := Up(t.Context(), small(name)); err != nil {
		t.Fatal(err)
	}
	if len(left(t, name)) < 4 {
		t.Errorf("the search for what is left finds only %v of a running cluster", left(t, name))
	}
	if _, err := Up(t.Context(), small(name)); err == nil || !strings.Contains(err.Error(), "it exists") {
		t.Errorf("a second up: %v", err)
	}
	c, err := Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(c.Nodes(), " "); got != "worker-1" {
		t.Errorf("nodes: %s", got)
	}
	out, err := c.Exec(t.Context(), "worker-1", "hostname")
	if err != nil || string(out) != "worker-1\n" {
		t.Errorf("hostname: %q, %v", out, err)
	}
	if out, err := c.Kubectl(t.Context(), "get", "nodes", "-o", "name"); err != nil || string(out) != "node/worker-1\n" {
		t.Errorf("kubectl: %q, %v", out, err)
	}
	client, err := c.API()
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if nodes, err := client.Nodes(t.Context()); err != nil || len(nodes) != 1 || nodes[0].Metadata.Name != "worker-1" {
		t.Errorf("nodes: %+v, %v", nodes, err)
	}
	var status bytes.Buffer
	if err := c.Status(t.Context(), &status); err != nil || !strings.Contains(status.String(), "NotReady") {
		t.Errorf("status: %v\n%s", err, &status)
	}
	if err := c.StopNode(t.Context(), "worker-1"); err == nil {
		t.Error("the node of the control plane was stopped")
	}
	if err := Down(t.Context(), name, os.Stdout); err != nil {
		t.Fatal(err)
	}
	assertNothingLeft(t, name)
	if err := Down(t.Context(), name, os.Stdout); err != nil {
		t.Errorf("a second down: %v", err)
	}
}

// A node behind a router is switched off and on beside another cluster: it has
// another boot id, the same disk, and its kubelet is back.
func TestPowerCycle(t *testing.T) {
	name := fresh(t)
	o := small(name)
	o.Nodes, o.Routed, o.Family, o.Proxy = 2, 2, "ipv6", "none"
	c, err := Up(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	run := func(command ...string) string {
		t.Helper()
		out, err := c.Exec(t.Context(), "worker-2", command...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	before := run("cat", "/proc/sys/kernel/random/boot_id")
	run("touch", "/var/lib/stays", "/run/goes")
	if err := c.StopNode(t.Context(), "worker-2"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Exec(t.Context(), "worker-2", "true"); err == nil {
		t.Error("a node that is off runs a command")
	}
	if err := c.StartNode(t.Context(), "worker-2"); err != nil {
		t.Fatal(err)
	}
	if err := c.StartNode(t.Context(), "worker-2"); err == nil {
		t.Error("a node that is on was switched on")
	}
	if after := run("cat", "/proc/sys/kernel/random/boot_id"); after == before {
		t.Error("the boot id is the old one")
	}
	if out := run("sh", "-c", "ls -d /var/lib/stays /run/goes || true"); out != "/var/lib/stays\n" {
		t.Errorf("on disk and in /run: %q", out)
	}
	if err := c.dead("kubelet-worker-2"); err != nil {
		t.Error(err)
	}
}

// Whenever the maker of a cluster dies, down leaves nothing.
func TestDownAfterCrash(t *testing.T) {
	name := fresh(t)
	record := func(process string) string {
		return filepath.Join(place.Run(name), "processes", process+".json")
	}
	for _, landmark := range []string{
		place.Run(name),
		underlay.Path(plan.Namespace(name, "underlay")),
		filepath.Join(place.Disk(name), "pki", "ca.crt"),
		record("anchor-worker-1"),
		record("kube-apiserver"),
		record("kubelet-worker-1"),
	} {
		t.Run(filepath.Base(landmark), func(t *testing.T) {
			cmd := exec.Command("/proc/self/exe")
			cmd.Env = append(os.Environ(), upEnvironment+"="+name)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
				if _, err := os.Lstat(landmark); err == nil {
					break
				}
				if time.Now().After(deadline) {
					cmd.Process.Kill()
					t.Fatalf("%s did not appear", landmark)
				}
			}
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_ = cmd.Wait() // killed, as it should be
			if err := Down(t.Context(), name, os.Stdout); err != nil {
				t.Error(err)
			}
			assertNothingLeft(t, name)
		})
	}
}

// A cluster that cannot come up says why, saves its logs and cleans up.
func TestFailedUpCleansUp(t *testing.T) {
	name := fresh(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := Up(ctx, small(name))
	if err == nil || !strings.Contains(err.Error(), "its logs are in ") {
		t.Fatalf("got %v, want an error that names the logs", err)
	}
	_, logs, _ := strings.Cut(err.Error(), "its logs are in ")
	t.Cleanup(func() { os.RemoveAll(logs) })
	if files, err := os.ReadDir(logs); err != nil || len(files) == 0 {
		t.Errorf("no logs in %q: %v", logs, err)
	}
	assertNothingLeft(t, name)
}

func assertNothingLeft(t *testing.T, name string) {
	t.Helper()
	// What was killed takes a moment to leave /proc.
	var rest []string
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if rest = left(t, name); len(rest) == 0 {
			return
		}
	}
	t.Errorf("left behind:\n%s", strings.Join(rest, "\n"))
}

// left lists whatever there is of a cluster, found otherwise than by Down.
func left(t *testing.T, name string) (rest []string) {
	t.Helper()
	for _, pattern := range []string{
		place.Run(name) + "*", place.Disk(name) + "*", "/run/netns/" + name + "*",
		"/sys/fs/cgroup/*" + name + "*", "/sys/fs/cgroup/*/*" + name + "*",
	} {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		rest = append(rest, found...)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		if strings.Contains(line, name) {
			rest = append(rest, "mount "+strings.TrimSpace(line))
		}
	}
	return append(rest, processesOf(t, name)...)
}

func processesOf(t *testing.T, name string) (found []string) {
	t.Helper()
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range processes {
		group, _ := os.ReadFile(dir + "/cgroup")
		line, _ := os.ReadFile(dir + "/cmdline")
		if bytes.Contains(group, []byte(plan.Cgroup(name))) || bytes.Contains(line, []byte(place.Disk(name)+"/")) {
			found = append(found, dir+" "+string(bytes.ReplaceAll(line, []byte{0}, []byte(" "))))
		}
	}
	return found
}
