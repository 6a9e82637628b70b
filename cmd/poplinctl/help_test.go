package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/test/golden"
)

// Every command has help with examples, whichever way somebody asks for it.
func TestHelp(t *testing.T) {
	all, err := poplinctl(t)
	if err != nil {
		t.Fatal(err, all)
	}
	for _, c := range commands() {
		if !strings.Contains(all, "poplinctl "+c.name) {
			t.Errorf("no %s in\n%s", c.name, all)
		}
		if len(c.examples()) == 0 {
			t.Errorf("%s has no example", c.name)
		}
		for _, args := range [][]string{{c.name, "-h"}, {c.name, "--help"}, {"help", c.name}} {
			out, err := poplinctl(t, args...)
			if err != nil || !strings.HasPrefix(out, "usage: poplinctl "+c.name) || !strings.Contains(out, "examples:\n  poplinctl "+c.name) {
				t.Errorf("%v: %v\n%s", args, err, out)
			}
		}
	}
	if out, _ := poplinctl(t, "ipam", "show", "-h"); !strings.Contains(out, "flags of show") || strings.Contains(out, "flags of check") {
		t.Errorf("%s", out)
	}
}

// The page says what the program says: go test -update writes it.
func TestReference(t *testing.T) {
	text := "# poplinctl\n\nMade from `poplinctl COMMAND -h` by a test (`TestReference`). As `kubectl-poplin` in\n" +
		"the PATH, by a copy or a link, the program is kubectl's command `kubectl poplin`.\n" +
		"\nCommands that ask nodes do so in the daemons' pods: whoever runs them needs to\nlist pods and to create `pods/exec` in namespace poplin-system.\n"
	t.Setenv("KUBECONFIG", "")
	t.Setenv("HOME", t.TempDir())
	for _, c := range commands() {
		out, err := poplinctl(t, c.name, "-h")
		if err != nil {
			t.Fatal(err)
		}
		text += "\n## " + c.name + "\n\n```\n" + out + "```\n"
	}
	golden.Equal(t, "../../docs/poplinctl.md", text)
}

func TestAsKubectlsCommand(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kubectl-poplin")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(self, path); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, "status", "-h")
	cmd.Env = append(os.Environ(), "POPLINCTL_TEST=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.HasPrefix(string(out), "usage: kubectl poplin status") {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestCompletion(t *testing.T) {
	words := func(before ...string) string {
		out, err := poplinctl(t, append([]string{"completion", "words"}, before...)...)
		if err != nil {
			t.Errorf("%v: %v %s", before, err, out)
		}
		return strings.Join(strings.Fields(out), " ")
	}
	for before, want := range map[string]string{
		"":                 "status",
		"ipam":             "show check",
		"ipam show":        "-cache -conflist -o",
		"status -o json":   "-cluster",
		"ingress migrate":  "-controller",
		"completion":       "bash zsh fish",
		"nothing of these": "",
	} {
		if got := words(strings.Fields(before)...); !strings.Contains(got, want) || want == "" && got != "" {
			t.Errorf("after %q: %q, want %q", before, got, want)
		}
	}
	for shell := range scripts {
		if out, err := poplinctl(t, "completion", shell); err != nil || !strings.Contains(out, "poplinctl completion words") {
			t.Errorf("%s: %v\n%s", shell, err, out)
		}
	}
	if out, err := poplinctl(t, "completion", "tcsh"); err == nil || !strings.Contains(out, "which shell?") {
		t.Errorf("%v %s", err, out)
	}
	// bash itself takes the script.
	script := "source <(\"$0\" completion bash); poplinctl() { \"$0\" \"$@\"; }; COMP_WORDS=(poplinctl ipam ch); COMP_CWORD=2; _poplinctl; echo \"${COMPREPLY[@]}\""
	cmd := exec.Command("bash", "-c", script, "/proc/self/exe")
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Args[3] = self
	cmd.Env = append(os.Environ(), "POPLINCTL_TEST=1")
	if out, err := cmd.CombinedOutput(); err != nil || strings.TrimSpace(string(out)) != "check" {
		t.Errorf("bash completes to %q, %v", out, err)
	}
}
