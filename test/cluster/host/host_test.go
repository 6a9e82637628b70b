package host

import (
	"strings"
	"testing"

	"poplin.dev/poplin/test/need"
)

func TestCheck(t *testing.T) {
	need.Root(t)
	if err := Check(3); err != nil {
		t.Errorf("this machine cannot run a cluster: %v", err)
	}
	if err := Check(1_000_000); err == nil || !strings.Contains(err.Error(), "sysctl -w fs.inotify") {
		t.Errorf("a million nodes: %v", err)
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{
		"go1.26": true, "go1.26.8": true, "go1.27rc1": true, "go2.0": true,
		"go1.25.9": false, "go1.9": false, "devel": false, "": false,
	} {
		if got := AtLeast(version, 1, 26); got != want {
			t.Errorf("AtLeast(%q) = %v", version, got)
		}
	}
}

func TestProgram(t *testing.T) {
	if Program("sh") == "" || Program("/bin/sh") == "" {
		t.Error("sh is not found")
	}
	if p := Program("no-such-program"); p != "" {
		t.Error(p)
	}
}
