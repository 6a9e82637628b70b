package node

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netns"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/thread"
	"sigs.k8s.io/yaml"
)

// A node has its own standard directories and identity, and none of it shows on
// the machine.
func TestBoot(t *testing.T) {
	need.Root(t)
	disk := t.TempDir()
	share := filepath.Join("/var/tmp", fmt.Sprintf("node-test-%d", os.Getpid()))
	if err := os.MkdirAll(share, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(share) })
	if err := os.WriteFile(share+"/shared", []byte("shared"), 0o644); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		t.Fatal(err)
	}
	boot := func() string {
		t.Helper()
		config := Config{Name: "worker-9", Cluster: "c", Namespace: scratch(t), Disk: disk,
			Hosts: "127.0.0.1 localhost\n", Nameserver: "192.0.2.53", Share: []string{share}}
		var out []byte
		if err := Boot(config, func() (err error) {
			out, err = exec.Command("sh", "-c", `
				hostname; cat /etc/resolv.conf /etc/machine-id /proc/sys/kernel/random/boot_id
				ls -A /run /etc/cni/net.d; cat `+share+`/shared; ls -d /sys/fs/cgroup/*/ | head -1
				echo mine >> /etc/cni/net.d/x; echo gone > /run/volatile; echo stays >> /var/lib/file; wc -l < /var/lib/file
				sysctl -w kernel.panic=77 >/dev/null; test -e /etc/passwd && echo passwd`).CombinedOutput()
			return err
		}); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return string(out)
	}
	first, second := boot(), boot()
	t.Logf("first:\n%s", first)
	for _, want := range []string{"worker-9\nnameserver 192.0.2.53\n", "shared/sys/fs/cgroup", "passwd"} {
		if !strings.Contains(first, want) {
			t.Errorf("the node lacks %q", want)
		}
	}
	if strings.Contains(first, string(bootID)) || strings.Split(first, "\n")[3] == strings.Split(second, "\n")[3] {
		t.Error("two starts have the same boot id")
	}
	if strings.Split(first, "\n")[2] != strings.Split(second, "\n")[2] {
		t.Error("the machine id changed with a power cycle")
	}
	if !strings.Contains(second, "/etc/cni/net.d:\nx\n") || strings.Contains(second, "volatile") || !strings.Contains(second, "\n2\n") {
		t.Errorf("after a power cycle the disk should be as it was, and /run empty:\n%s", second)
	}
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if string(before) != string(after) {
		t.Errorf("the machine's mounts changed:\n%s\nto\n%s", before, after)
	}
	if b, _ := os.ReadFile("/proc/sys/kernel/panic"); string(b) == "77\n" {
		t.Error("a setting of a node reached the machine")
	}
	var uts syscall.Utsname
	if err := syscall.Uname(&uts); err != nil || uts.Nodename[0] == 'w' && uts.Nodename[7] == '9' {
		t.Error("the node's name reached the machine")
	}
}

// scratch makes a network namespace that lasts as long as the test.
func scratch(t *testing.T) string {
	t.Helper()
	var ns netns.NsHandle
	if err := thread.Discard(func() (err error) { ns, err = netns.New(); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	return fmt.Sprintf("/proc/self/fd/%d", int(ns))
}

func TestConfigs(t *testing.T) {
	b, err := KubeletConfig(KubeletSettings{CACert: "/ca.crt", CgroupRoot: "/c/worker-1", DNS: "fd00:10:96::a", Address: "::"})
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		CgroupRoot string
		ClusterDNS []string
		Address    net.IP
	}
	if err := yaml.Unmarshal(b, &config); err != nil {
		t.Fatal(err)
	}
	if config.CgroupRoot != "/c/worker-1" || len(config.ClusterDNS) != 1 || config.ClusterDNS[0] != "fd00:10:96::a" {
		t.Errorf("%+v", config)
	}
	for _, tt := range []struct {
		runtime Runtime
		want    []string
	}{
		{DebianContainerd("containerd", "ctr"), []string{`sandbox_image = "registry.k8s.io/pause:3.10.2"`}},
		{Containerd2("/c/containerd", "/c/ctr", "/c/shim"), []string{`sandbox = "registry.k8s.io/pause:3.10.2"`, `runtime_path = "/c/shim"`}},
	} {
		b, err := tt.runtime.Config(RuntimeSettings{PauseImage: "registry.k8s.io/pause:3.10.2"})
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range append(tt.want, "disable_apparmor = true") {
			if !strings.Contains(string(b), want) {
				t.Errorf("the configuration of %s lacks %s", tt.runtime.Program, want)
			}
		}
	}
}
