package main

import (
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/kube/kubetest"
)

// poplinctl runs this test's program as the command.
func poplinctl(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), "POPLINCTL_TEST=1")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func TestMain(m *testing.M) {
	if os.Getenv("POPLINCTL_TEST") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func TestStatusOfTheCluster(t *testing.T) {
	s := kubetest.New(t)
	s.Put("/api/v1/nodes", kubetest.Object{
		"apiVersion": "v1", "kind": "Node", "metadata": kubetest.Object{"name": "worker-1"},
		"spec":   kubetest.Object{"podCIDRs": []string{"10.244.1.0/24"}},
		"status": kubetest.Object{"conditions": []kubetest.Object{{"type": "Ready", "status": "True"}}},
	})
	s.Put("/apis/poplin.dev/v1alpha1/nodenetworks", kubetest.Object{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": kubetest.Object{"name": "worker-1"},
		"spec": kubetest.Object{"podCIDRs": []string{"10.244.1.0/24"}, "mtu": 1450, "vtep": kubetest.Object{"address": "172.30.0.11", "mac": "02:00:00:00:00:01"}},
	})
	config := s.Kubeconfig()
	out, err := poplinctl(t, "status", "-cluster", "-kubeconfig", config)
	const want = "NODE READY VERSION LAYERS PEERS POD RANGES VTEP MAC MTU worker-1 true - - - 10.244.1.0/24 172.30.0.11 02:00:00:00:00:01 1450 worker-1: daemon: no poplind pod on this node"
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.HasPrefix(strings.Join(strings.Fields(out), " "), want) {
		t.Errorf("%v\n%s", err, out)
	}
	out, err = poplinctl(t, "status", "-cluster", "-kubeconfig", config, "-o", "json")
	var list []map[string]any
	out, _, _ = strings.Cut(out, "poplinctl: ")
	if !errors.As(err, &exit) || json.Unmarshal([]byte(out), &list) != nil || len(list) != 1 || list[0]["mtu"] != 1450.0 || list[0]["ready"] != true {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestRefuses(t *testing.T) {
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	absent := filepath.Join(t.TempDir(), "absent")
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"teleport"}, `unknown command "teleport"`},
		{[]string{"status", "extra"}, `unknown argument "extra"`},
		{[]string{"status", "-o", "xml"}, "write table or json"},
		{[]string{"status", "-socket", absent}, "run this on a node"},
		{[]string{"status", "-socket", absent, "-kubeconfig", absent}, "read kubeconfig " + absent},
	}
	for _, tt := range tests {
		if out, err := poplinctl(t, tt.args...); err == nil || !strings.Contains(out, tt.want) {
			t.Errorf("%v: %v, %q; want %q", tt.args, err, out, tt.want)
		}
	}
	if out, err := poplinctl(t, "--version"); err != nil || !strings.HasPrefix(out, "poplinctl dev (commit ") {
		t.Errorf("%v, %q", err, out)
	}
}
