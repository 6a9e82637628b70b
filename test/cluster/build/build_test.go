package build

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	root, cache := "../../..", t.TempDir()
	k, err := Find(root, cache, "", "go1.26.8")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(k.Version, "v1.") || !strings.HasPrefix(k.CoreDNS, "v1.") || k.Built() {
		t.Errorf("%+v", k)
	}
	minor := k.Version[1:strings.LastIndex(k.Version, ".")]
	for _, version := range []string{k.Version, strings.TrimPrefix(k.Version, "v"), minor, "v" + minor} {
		if same, err := Find(root, cache, version, "go1.26.8"); err != nil || same.Dir != k.Dir {
			t.Errorf("Find(%q): %+v, %v", version, same, err)
		}
	}
	if other, _ := Find(root, cache, "", "go1.26.9"); other.Dir == k.Dir {
		t.Error("another Go gives the same directory")
	}
	if _, err := Find(root, cache, "1.1", "go1.26.8"); err == nil || !strings.Contains(err.Error(), k.Version) {
		t.Errorf("an unknown version: %v", err)
	}
}

func TestFindContainerd(t *testing.T) {
	root, cache := "../../..", t.TempDir()
	c, err := FindContainerd(root, cache, "go1.26.8")
	if err != nil || !strings.HasPrefix(c.Version, "v2.") || !strings.HasPrefix(c.Program(ContainerdShim), cache) {
		t.Errorf("%+v, %v", c, err)
	}
	if other, _ := FindContainerd(root, cache, "go1.26.9"); other.Dir == c.Dir {
		t.Error("another Go gives the same directory")
	}
}

func TestOnceIsWholeOrNotThere(t *testing.T) {
	k := Kubernetes{Module: Module{Dir: filepath.Join(t.TempDir(), "kubernetes", "x")}}
	fail := os.ErrClosed
	for range 2 {
		err := k.once(k.Program(Kubelet), func(stage string) error {
			if err := os.WriteFile(filepath.Join(stage, Kubelet), nil, 0o755); err != nil {
				t.Fatal(err)
			}
			return fail
		})
		if err == nil || k.Built() {
			t.Errorf("a build that failed: %v, built %v", err, k.Built())
		}
	}
	if err := k.once(k.Program(Kubelet), func(stage string) error {
		if err := os.WriteFile(filepath.Join(stage, Kubelet), nil, 0o755); err != nil {
			return err
		}
		return k.become(stage)
	}); err != nil || !k.Built() {
		t.Errorf("a build that went well: %v", err)
	}
	if err := k.once(k.Program(Kubelet), func(string) error { t.Error("built again"); return nil }); err != nil {
		t.Error(err)
	}
}
