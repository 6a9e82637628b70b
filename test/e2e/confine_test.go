//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/sockets"
)

// confinement is what the kernel holds a process to.
func confinement(pid int) (string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return "", err
	}
	mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mountinfo", pid))
	if err != nil {
		return "", err
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		if slices.Contains([]string{"CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Seccomp"}, key) {
			value = strings.TrimSpace(value)
			if strings.HasPrefix(key, "Cap") {
				value = strings.TrimLeft(value, "0")
			}
			got = append(got, key+"="+value)
		}
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); f[4] == "/" {
			got = append(got, "root="+strings.SplitN(f[5], ",", 2)[0])
		}
	}
	return strings.Join(got, " "), nil
}

const (
	netAdmin = 1 << 12
	netRaw   = 1 << 13
	sysAdmin = 1 << 21
)

func confined(capabilities int) string {
	return fmt.Sprintf("CapPrm=%x CapEff=%[1]x CapBnd=%[1]x NoNewPrivs=1 Seccomp=2 root=ro", capabilities)
}

// The running daemon has one of root's rights, a root it cannot write, and
// files that are root's alone; what else it may have, a switch gives it.
func TestDaemonIsConfined(t *testing.T) {
	c := deployed(t) // so that there are pods' files too
	check := func(want int) {
		t.Helper()
		await.Success(t, time.Minute, func() error {
			got, err := confinement(live.Daemon(t, c, "worker-1"))
			if err == nil && got != confined(want) {
				err = fmt.Errorf("confined by %s, want %s", got, confined(want))
			}
			return err
		})
	}
	check(netAdmin)
	for _, dir := range []string{"/var/lib/poplin", "/run/poplin", "/var/lib/cni/networks/poplin", "/var/lib/cni/networks/.poplin", "/etc/cni/net.d/10-poplin.conflist"} {
		root, err := c.Path("worker-1", dir)
		if err != nil {
			t.Fatal(err)
		}
		err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			info, err := d.Info()
			if err != nil {
				return nil // it went meanwhile
			}
			if mode := info.Mode().Perm(); d.IsDir() && mode != 0o700 || !d.IsDir() && mode != 0o600 {
				t.Errorf("%s has mode %s", path, info.Mode())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}

	patch := live.Options(t, c, func() { check(netAdmin) })
	patch("net-raw")
	check(netAdmin | netRaw)
	patch("pod-inspection")
	check(netAdmin | netRaw | sysAdmin)
	out, err := c.Kubectl(t.Context(), "-n", "poplin-system", "exec", daemonPod(t, c, "worker-1"), "--", "/poplinctl", "status")
	if err != nil || !strings.Contains(string(out), "NET_ADMIN, NET_RAW, SYS_ADMIN") {
		t.Errorf("status says\n%s%v", out, err)
	}
}

// A daemon listens where its configuration says, and on a port of the node
// that belongs to a Service as long as there is one.
func TestListeners(t *testing.T) {
	c := shared(t)
	base := []string{"tcp 127.0.0.1:9410", "tcp 127.0.0.1:9411", "tcp [::]:10256", "unix /run/poplin/poplind.sock.new"}
	check := func(want ...string) {
		t.Helper()
		want = slices.Sorted(slices.Values(slices.Concat(base, want)))
		await.Success(t, 30*time.Second, func() error {
			got, err := sockets.Listening(live.Daemon(t, c, "worker-1"))
			if err == nil && !slices.Equal(got, want) {
				err = fmt.Errorf("listens on %q, want %q", got, want)
			}
			return err
		})
	}
	check()
	service := object{
		"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "trust-listeners"},
		"spec": object{"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 32109, "selector": object{"a": "b"}, "ports": []object{{"port": 80}}},
	}
	const services = "/api/v1/namespaces/default/services"
	admin := administrator(t, c)
	if err := admin.do(t.Context(), "POST", services, service); err != nil {
		t.Fatal(err)
	}
	remove := func() error { return admin.do(context.Background(), "DELETE", services+"/trust-listeners", nil) }
	t.Cleanup(func() { _ = remove() })
	var at []string
	for _, a := range nodes(t, c)[0].addresses {
		at = append(at, "tcp "+netip.AddrPortFrom(a, 32109).String())
	}
	check(at...)
	if err := remove(); err != nil {
		t.Fatal(err)
	}
	check()
}
