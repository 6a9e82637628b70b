package main

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func TestIPAM(t *testing.T) {
	dir := t.TempDir()
	reservations, cache := filepath.Join(dir, "networks", "pods"), filepath.Join(dir, "results")
	conflist := filepath.Join(dir, "10-pods.conflist")
	for _, d := range []string{reservations, cache} {
		if err := os.MkdirAll(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","plugins":[{"type":"poplin","ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.244.1.0/24"}]]}}]}`, filepath.Dir(reservations))
	if err := os.WriteFile(conflist, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	args := func(command string, more ...string) []string {
		return append([]string{"ipam", command, "-conflist", conflist, "-cache", cache}, more...)
	}
	if out, err := poplinctl(t, args("check")...); err != nil || !strings.Contains(out, "no problem found") {
		t.Errorf("%v, %s", err, out)
	}

	const owner = "0123\r\neth0"
	sum := sha256.Sum256([]byte(owner))
	for _, name := range []string{"10.244.1.5", fmt.Sprintf(".owner-%x", sum[:8])} {
		if err := os.WriteFile(filepath.Join(reservations, name), []byte(owner), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	out, err := poplinctl(t, args("show")...)
	if err != nil || !strings.Contains(strings.Join(strings.Fields(out), " "), "10.244.1.5 reserved - eth0 0123") || !strings.Contains(out, "253") {
		t.Errorf("%v, %s", err, out)
	}
	out, err = poplinctl(t, args("check")...)
	exit := new(exec.ExitError)
	if !errors.As(err, &exit) || exit.ExitCode() != 2 || !strings.Contains(out, "leak: [10.244.1.5] of container 0123") || !strings.Contains(out, "problems with addresses of network pods: 1") {
		t.Errorf("%v, %s", err, out)
	}
	out, err = poplinctl(t, args("show", "-o", "json")...)
	var report struct {
		Addresses []struct{ Address, State, ContainerID string }
		Problems  []struct{ Kind string }
	}
	if err != nil || json.Unmarshal([]byte(out), &report) != nil || len(report.Addresses) != 1 || report.Addresses[0].ContainerID != "0123" || len(report.Problems) != 1 {
		t.Errorf("%v, %s", err, out)
	}

	for _, row := range []struct {
		args []string
		want string
	}{
		{[]string{"ipam"}, "which one?"},
		{[]string{"ipam", "list"}, "which one?"},
		{args("show", "extra"), `unknown argument "extra"`},
		{args("check", "-o", "xml"), "write table or json"},
		{[]string{"ipam", "show", "-conflist", dir + "/absent"}, "is this a node, or its poplind pod?"},
	} {
		out, err := poplinctl(t, row.args...)
		if !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, row.want) {
			t.Errorf("%v: %v, %q; want %q", row.args, err, out, row.want)
		}
	}
}
