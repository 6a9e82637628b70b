package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// Tools maps each program that a cluster runs, or puts into its test images, to
// the Debian package that has it.
func Tools() map[string]string {
	return map[string]string{
		// what nodes run
		"containerd": "containerd", "ctr": "containerd", "runc": "runc",
		"/usr/lib/cni/loopback": "containernetworking-plugins",
		"ip":                    "iproute2", "nft": "nftables", "iptables": "iptables", "conntrack": "conntrack",
		"ethtool": "ethtool", "nsenter": "util-linux", "mount": "mount",
		// what the tests of the agnhost image run in it
		"busybox": "busybox-static", "dash": "dash", "bash": "bash", "curl": "curl", "wget": "wget",
		"dig": "bind9-dnsutils", "nslookup": "bind9-dnsutils", "host": "bind9-host", "nc": "netcat-openbsd",
		"ping": "iputils-ping", "iperf": "iperf", "tcpdump": "tcpdump",
	}
}

// Install installs the packages of the programs that are missing, and says
// which. It starts no service.
func Install(ctx context.Context, wanted map[string]string) (installed []string, err error) {
	packages := missingPrograms(wanted)
	if len(packages) == 0 {
		return nil, nil
	}
	slices.Sort(packages)
	packages = slices.Compact(packages)
	if Program("apt-get") == "" {
		return nil, fmt.Errorf("programs are missing and this is no Debian: install what these packages hold there: %s", strings.Join(packages, " "))
	}
	err = withoutServices(func() error {
		if err := apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)...); err == nil {
			return nil
		}
		// The lists may be absent or old.
		if err := apt(ctx, "update"); err != nil {
			return err
		}
		return apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
	})
	if err != nil {
		return nil, fmt.Errorf("install packages %s: %w", strings.Join(packages, " "), err)
	}
	if left := missingPrograms(wanted); len(left) > 0 {
		return packages, fmt.Errorf("install packages: these are installed and still lack a program: %s", strings.Join(left, " "))
	}
	return packages, nil
}

func apt(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Use-Pty=0"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(string(out)), "\n")
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, strings.Join(lines[max(0, len(lines)-3):], "; "))
	}
	return nil
}

// Debian's maintainer scripts ask this program before they start a service;
// 101 means no (invoke-rc.d(8)).
const (
	policy      = "/usr/sbin/policy-rc.d"
	policySaved = policy + ".before-poplin-cluster"
	policyText  = "#!/bin/sh\n# put here by poplin's test cluster for one apt-get, then removed\nexit 101\n"
)

// withoutServices runs do while no package can start a service, and then
// restores what was there. A run that was killed half way is repaired by the
// next one.
func withoutServices(do func() error) (err error) {
	if err := restorePolicy(); err != nil {
		return err
	}
	if err := os.Rename(policy, policySaved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("save %s: %w", policy, err)
	}
	defer func() { err = errors.Join(err, restorePolicy()) }()
	if err := os.WriteFile(policy, []byte(policyText), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", policy, err)
	}
	return do()
}

func restorePolicy() error {
	if b, err := os.ReadFile(policy); err == nil && string(b) == policyText {
		if err := os.Remove(policy); err != nil {
			return fmt.Errorf("remove %s: %w", policy, err)
		}
	}
	if err := os.Rename(policySaved, policy); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("restore %s: %w", policy, err)
	}
	return nil
}
