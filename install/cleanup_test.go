package install_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"
)

// The uninstaller has no more rights than the daemon, and sees the directories
// above those that it removes.
func TestCleanupManifest(t *testing.T) {
	text, err := os.ReadFile("manifests/cleanup.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, doc, found := strings.Cut(string(text), "\n---\n")
	ds := &appsv1.DaemonSet{}
	if err := yaml.UnmarshalStrict([]byte(doc), ds); err != nil || !found {
		t.Fatal(found, err)
	}
	pod := ds.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.AutomountServiceAccountToken == nil || *pod.AutomountServiceAccountToken {
		t.Error("host namespaces or token are not as designed")
	}
	seen := map[string]string{}
	for _, v := range pod.Volumes {
		seen[v.Name] = v.HostPath.Path
	}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem || s.Privileged != nil ||
			!slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, []corev1.Capability{"NET_ADMIN"}) {
			t.Errorf("%s: %+v", c.Name, s)
		}
		if c.Image != "poplin.dev/poplin:dev" || !slices.Equal(c.Command[:3], []string{"/poplind", "cleanup", "--root=/host"}) {
			t.Errorf("%s runs %s %v", c.Name, c.Image, c.Command)
		}
		for _, m := range c.VolumeMounts {
			if m.MountPath != "/host"+seen[m.Name] {
				t.Errorf("%s: %s is at %s", c.Name, seen[m.Name], m.MountPath)
			}
		}
		if len(c.VolumeMounts) != len(pod.Volumes) {
			t.Errorf("%s sees %d of %d directories", c.Name, len(c.VolumeMounts), len(pod.Volumes))
		}
	}
}
