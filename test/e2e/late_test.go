//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// pluginStatus runs the CNI plugin's STATUS on a node, as a runtime that knows
// the command does, and returns what it says against it.
func pluginStatus(ctx context.Context, c *cluster.Cluster, node string) (code int, text string, err error) {
	out, err := c.Exec(ctx, node, "cat", "/etc/cni/net.d/10-poplin.conflist")
	if err != nil {
		return 0, "", err
	}
	var list struct {
		Name    string
		Plugins []object
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return 0, "", err
	}
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, "1.1.0"
	delete(conf, "capabilities")
	stdin, err := json.Marshal(conf)
	if err != nil {
		return 0, "", err
	}
	cmd, err := c.Command(ctx, node, "env", "CNI_COMMAND=STATUS", "CNI_PATH=/opt/cni/bin", "/opt/cni/bin/poplin")
	if err != nil {
		return 0, "", err
	}
	cmd.Stdin = strings.NewReader(string(stdin))
	if out, err = cmd.Output(); err == nil {
		return 0, "", nil
	}
	var answer struct {
		Code         int
		Msg, Details string
	}
	err = json.Unmarshal(out, &answer)
	return answer.Code, answer.Msg + ": " + answer.Details, err
}

// A Node that is made anew while nobody assigns ranges: its daemon waits, says
// so to the runtime and to users, and goes on by itself once there is a range,
// the same process all the while.
func TestRangeComesLate(t *testing.T) {
	c := live.Temporary(t, cluster.Options{Name: "e2e-late", Nodes: 2, Family: "dual", Network: "poplin"})
	const node, assigner = "worker-2", "kube-controller-manager"
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	status := func(want int, says string) error {
		code, text, err := pluginStatus(t.Context(), c, node)
		if err == nil && (code != want || !strings.Contains(text, says)) {
			err = fmt.Errorf("STATUS says %d %s, want %d %s", code, text, want, says)
		}
		return err
	}
	pid := live.Daemon(t, c, node)
	await.Success(t, 20*time.Second, func() error { return status(0, "") })

	do(c.KillDaemon(t.Context(), assigner))
	_, err := c.Kubectl(t.Context(), "delete", "node", node)
	do(err)
	// A kubelet registers its Node when it starts.
	do(c.KillDaemon(t.Context(), "kubelet-"+node))
	do(c.StartDaemon("kubelet-" + node))
	await.Success(t, time.Minute, func() error { return status(51, "spec.podCIDRs") })
	await.Success(t, 3*time.Minute, func() error {
		out, err := c.Kubectl(t.Context(), "get", "events", "--field-selector=reason=PodCIDRMissing,involvedObject.name="+node, "-o", "name")
		if err == nil && len(out) == 0 {
			err = fmt.Errorf("no Event says so")
		}
		return err
	})

	do(c.StartDaemon(assigner))
	await.Success(t, time.Minute, func() error { return status(0, "") })
	await.Success(t, time.Minute, func() error {
		out, err := c.Exec(t.Context(), node, "curl", "-s", "-f", "http://127.0.0.1:9411/readyz")
		if err != nil {
			err = fmt.Errorf("%s: %w", out, err)
		}
		return err
	})
	if now := live.Daemon(t, c, node); now != pid || pid == 0 {
		t.Errorf("the daemon was process %d and is %d", pid, now)
	}
	// What other nodes read of it is the new Node's.
	await.Success(t, time.Minute, func() error {
		var n, owned struct {
			Metadata struct {
				UID             string
				OwnerReferences []struct{ UID string }
			}
		}
		get(t, c, &n, "node", node)
		out, err := c.Kubectl(t.Context(), "get", "nodenetwork", node, "-o", "json")
		if err == nil {
			err = json.Unmarshal(out, &owned)
		}
		if err == nil && (len(owned.Metadata.OwnerReferences) != 1 || owned.Metadata.OwnerReferences[0].UID != n.Metadata.UID) {
			err = fmt.Errorf("the NodeNetwork belongs to %v, the Node is %s", owned.Metadata.OwnerReferences, n.Metadata.UID)
		}
		return err
	})
}
