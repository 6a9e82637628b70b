//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// TestCNI11: a runtime that speaks CNI 1.1, which Debian's does not.
func TestCNI11(t *testing.T) {
	c := live.Temporary(t, cluster.Options{Name: "test-cni11", Nodes: 1, Runtime: cluster.RuntimeContainerd2, Network: "poplin"})
	t.Run("StatusDecidesWhetherTheNodeIsReady", func(t *testing.T) { statusDecides(t, c) })
	t.Run("GCOnTheLiveCache", func(t *testing.T) { gcOnTheLiveCache(t, c) })
	t.Run("WhoHasWhichAddress", func(t *testing.T) { whoHasWhichAddress(t, c) })
}

// whoHasWhichAddress asks in the daemon's pod, whose image and mounts must do.
func whoHasWhichAddress(t *testing.T, c *cluster.Cluster) {
	ask := func(args ...string) string {
		t.Helper()
		out, err := c.Kubectl(t.Context(), append([]string{"--namespace=poplin-system", "exec", "daemonset/poplind", "--", "/poplinctl", "ipam"}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	ask("check") // or it would fail
	var report struct {
		Addresses []struct{ State, Pod string }
	}
	if err := json.Unmarshal([]byte(ask("show", "-o", "json")), &report); err != nil {
		t.Fatal(err)
	}
	used := 0
	for _, a := range report.Addresses {
		if a.State == "used" && strings.HasPrefix(a.Pod, "kube-system/coredns-") {
			used++
		}
	}
	if used < 2 {
		t.Errorf("%d addresses of dual-stack CoreDNS: %+v", used, report.Addresses)
	}
}

// statusDecides: containerd asks every few seconds, and the Node says what it
// was answered.
func statusDecides(t *testing.T, c *cluster.Cluster) {
	on := func(script string) string {
		t.Helper()
		out, err := c.Exec(t.Context(), "worker-1", "sh", "-ec", script)
		if err != nil {
			t.Fatal(err)
		}
		return string(out)
	}
	condition := func(status string, texts ...string) {
		t.Helper()
		await.Success(t, 2*time.Minute, func() error {
			out, err := c.Kubectl(t.Context(), "get", "node", "worker-1", "-o", `jsonpath={.status.conditions[?(@.type=="Ready")]}`)
			var got struct{ Status, Message string }
			if err := errors.Join(err, json.Unmarshal(out, &got)); err != nil {
				return err
			}
			for _, text := range append(texts, "") {
				if got.Status != status || !strings.Contains(got.Message, text) {
					return fmt.Errorf("node is Ready=%s, %q; want %s with %q", got.Status, got.Message, status, texts)
				}
			}
			return nil
		})
		t.Logf("Ready=%s %q", status, texts)
	}
	condition("True")

	// The plugin tells of each call, and is itself again afterwards.
	on(`cd /opt/cni/bin; cp poplin poplin.real
		printf '#!/bin/sh\necho $CNI_COMMAND >> /run/cni-calls\nexec /opt/cni/bin/poplin.real\n' > poplin.new
		chmod 755 poplin.new; mv poplin.new poplin`)
	start := time.Now()
	await.Success(t, 2*time.Minute, func() error {
		if n := strings.Count(on("cat /run/cni-calls || true"), "STATUS"); n < 4 {
			return fmt.Errorf("%d calls of STATUS", n)
		}
		return nil
	})
	t.Logf("4 calls of STATUS in %v", time.Since(start).Round(time.Second))
	on("mv /opt/cni/bin/poplin.real /opt/cni/bin/poplin")

	// No free address: every one of the range is somebody else's.
	on(`cd /var/lib/cni/networks/poplin; mkdir /var/lib/mine
		for i in $(seq 2 254); do a=10.244.0.$i; [ -e $a ] || { printf 'stranger\r\neth0' > $a; touch /var/lib/mine/$a; }; done`)
	condition("False", "no free address", "10.244.0.2-10.244.0.255")
	on(`cd /var/lib/mine; for a in *; do rm /var/lib/cni/networks/poplin/$a; done; rm -r /var/lib/mine`)
	condition("True")

	// As after a boot, with a daemon that does not get ready.
	patch := func(kind, text string) {
		t.Helper()
		if _, err := c.Kubectl(t.Context(), "--namespace=poplin-system", "patch", "daemonset", "poplind", "--type="+kind, "--patch="+text); err != nil {
			t.Fatal(err)
		}
	}
	patch("merge", `{"spec":{"template":{"spec":{"nodeSelector":{"poplin.dev/none":"none"}}}}}`)
	await.Success(t, 2*time.Minute, func() error {
		out, err := c.Kubectl(t.Context(), "--namespace=poplin-system", "get", "pods", "--selector=app.kubernetes.io/name=poplind", "--output=name")
		if err == nil && len(out) > 0 {
			err = fmt.Errorf("still there: %s", out)
		}
		return err
	})
	on("sleep 11") // longer than containerd waits between two calls
	condition("True")
	on("rm /run/poplin/ready")
	condition("False", "poplind has not been ready since this node started")
	patch("json", `[{"op":"remove","path":"/spec/template/spec/nodeSelector"}]`)
	condition("True")
}

// gcOnTheLiveCache: what the runtime does not know goes with everything that
// belongs to it, what it knows stays.
func gcOnTheLiveCache(t *testing.T, c *cluster.Cluster) {
	on := func(command ...string) string {
		t.Helper()
		out, err := c.Exec(t.Context(), "worker-1", command...)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(out))
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const (
		held     = "grep -rlE '^(lost|forgotten)' /var/lib/cni/networks/poplin /var/lib/poplin/hostports || true"
		linked   = "ip -o link show group 0x706c | grep -c 'plw[0-9a-f]\\{12\\}'"
		reserved = "ls -A /var/lib/cni/networks/poplin"
	)
	links, before := on("sh", "-c", linked), on("sh", "-c", reserved)
	if links == "0" {
		t.Fatal("no pod of the cluster is on the node")
	}
	for id, port := range map[string]string{"lost": "8099", "forgotten": "8100"} {
		on("ip", "netns", "add", id)
		on("env", asRuntime+"=add", self, id, "/run/netns/"+id, port)
	}
	// One that the cache has, which libcni deletes, and one that nobody knows
	// of but us.
	on("sh", "-ec", "rm /var/lib/cni/results/poplin-forgotten-eth0")
	if n := len(strings.Fields(on("sh", "-c", held))); n < 6 {
		t.Fatalf("%d reservations and markers of two dual-stack attachments", n)
	}
	if ports := on("nft", "list", "table", "inet", "poplin-hostport"); !strings.Contains(ports, "8099") || !strings.Contains(ports, "8100") {
		t.Fatalf("no host ports: %s", ports)
	}
	on("env", asRuntime+"=gc", self)
	if got := on("sh", "-c", held); got != "" {
		t.Errorf("still reserved: %s", got)
	}
	if got := on("sh", "-c", linked); got != links {
		t.Errorf("%s links, before %s", got, links)
	}
	if got := on("sh", "-c", reserved); got != before {
		t.Errorf("reservations were\n%s\nand are\n%s", before, got)
	}
	if files := on("sh", "-c", "ls /var/lib/poplin/hostports; nft list table inet poplin-hostport 2>/dev/null || true"); strings.Contains(files, ".json") || strings.Contains(files, "8099") {
		t.Errorf("host ports are left: %s", files)
	}
	var list struct {
		Items []struct{ Status struct{ PodIP string } }
	}
	get(t, c, &list, "pods", "--namespace=kube-system", "--selector=k8s-app=kube-dns")
	for _, p := range list.Items {
		on("nc", "-z", "-w", "10", p.Status.PodIP, "53")
	}
	if len(list.Items) == 0 {
		t.Error("no pod to reach")
	}
}

// asRuntime has this test's program be a container runtime for one call.
const asRuntime = "POPLIN_E2E_RUNTIME"

func runtime(command string, args []string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	list, err := libcni.NetworkConfFromFile("/etc/cni/net.d/10-poplin.conflist")
	if err != nil {
		return err
	}
	// Its cache is where every runtime's is.
	cni := libcni.NewCNIConfig([]string{"/opt/cni/bin"}, nil)
	if command == "add" {
		port, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		_, err = cni.AddNetworkList(ctx, list, &libcni.RuntimeConf{
			ContainerID: args[0], NetNS: args[1], IfName: "eth0",
			CapabilityArgs: map[string]any{"portMappings": []map[string]any{{"hostPort": port, "containerPort": 80, "protocol": "tcp"}}},
		})
		return err
	}
	known, err := cni.GetCachedAttachments("")
	if err != nil {
		return err
	}
	var valid []types.GCAttachment
	for _, a := range known {
		if a.Network == list.Name && a.ContainerID != "lost" {
			valid = append(valid, types.GCAttachment{ContainerID: a.ContainerID, IfName: a.IfName})
		}
	}
	if len(valid) == 0 {
		return errors.New("the runtime's cache knows of no pod")
	}
	return cni.GCNetworkList(ctx, list, &libcni.GCArgs{ValidAttachments: valid})
}
