package install_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// TestHost: files are written where their readers are, name our devices and no
// others, and go again.
func TestHost(t *testing.T) {
	etc := t.TempDir()
	if written, err := install.Host(etc); err != nil || len(written) != 0 {
		t.Errorf("without their readers: %v, %v", written, err)
	}
	for _, dir := range []string{"systemd/network", "NetworkManager/conf.d"} {
		if err := os.MkdirAll(filepath.Join(etc, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	written, err := install.Host(etc)
	if err != nil || !slices.Equal(written, install.HostFiles(etc)) || len(written) != 3 {
		t.Errorf("wrote %v, %v, want %v", written, err, install.HostFiles(etc))
	}
	pods := strings.TrimRight(plan.HostName("0123", "eth0"), "0123456789abcdef") + "*"
	for i, want := range [][]string{
		{"[Match]", "OriginalName=" + overlay.Link + " " + pods, "[Link]", "MACAddressPolicy=none"},
		{"[Match]", "Name=" + overlay.Link + " " + pods, "[Link]", "Unmanaged=yes"},
		{"[keyfile]", "unmanaged-devices+=interface-name:" + overlay.Link + ";interface-name:" + pods},
	} {
		text, err := os.ReadFile(written[i])
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for line := range strings.Lines(string(text)) {
			if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
				got = append(got, line)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s says %q, want %q", written[i], got, want)
		}
	}
	if again, err := install.Host(etc); err != nil || len(again) != 0 {
		t.Errorf("a second time: %v, %v", again, err)
	}
	if removed, err := install.Remove(install.HostFiles(etc)...); err != nil || len(removed) != 3 {
		t.Errorf("removed %v, %v", removed, err)
	}
}

// TestHostPatch: the patch adds to the DaemonSet's init container, and to
// nothing that is not there.
func TestHostPatch(t *testing.T) {
	type set struct {
		Spec struct {
			Template struct {
				Spec struct {
					InitContainers []struct {
						Name         string
						Command      []string
						VolumeMounts []struct{ Name, MountPath string }
					}
					Volumes []struct{ Name string }
				}
			}
		}
	}
	read := func(text []byte) (s set) {
		t.Helper()
		if err := yaml.Unmarshal(text, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	var base set
	for doc := range strings.SplitSeq(string(install.Manifest), "\n---\n") {
		if strings.Contains(doc, "kind: DaemonSet") {
			base = read([]byte(doc))
		}
	}
	text, err := os.ReadFile("manifests/host-files.yaml")
	if err != nil {
		t.Fatal(err)
	}
	was, now := base.Spec.Template.Spec.InitContainers[0], read(text).Spec.Template.Spec
	init := now.InitContainers[0]
	if want := append(slices.Clone(was.Command), "--etc=/host/etc"); init.Name != was.Name || !slices.Equal(init.Command, want) {
		t.Errorf("%s: command %v, want %v", init.Name, init.Command, want)
	}
	if len(init.VolumeMounts) != 1 || init.VolumeMounts[0].MountPath != "/host/etc" || len(now.Volumes) != 1 || now.Volumes[0].Name != init.VolumeMounts[0].Name {
		t.Errorf("mounts %v, volumes %v", init.VolumeMounts, now.Volumes)
	}
}
