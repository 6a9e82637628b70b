package cluster

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/test/cluster/process"
)

// Status writes what there is, what runs, and what the API server says.
func (c *Cluster) Status(ctx context.Context, out io.Writer) error {
	o := c.Options
	fmt.Fprintf(out, "cluster %s: Kubernetes %s, %s, family %s, network %s, proxy %s\n", o.Name, c.Kubernetes.Version, c.layout, o.Family, o.Network, o.Proxy)
	fmt.Fprintf(out, "API server %s, on worker-1; pods %s, Services %s; logs in %s\n\n", c.Server(), joined(c.plan.pods), joined(c.plan.services), c.Logs())
	records, err := process.List(c.processes())
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "PROCESS\tPID\tSTATE")
	for _, r := range records {
		state := "running"
		if !r.Alive() {
			state = "ended, see " + r.Log
		}
		fmt.Fprintf(table, "%s\t%d\t%s\n", r.Name, r.PID, state)
	}
	fmt.Fprintln(table, "\nNODE\tNETWORK NAMESPACE\tADDRESSES\tSTATE")
	states := c.nodeStates(ctx)
	for i, name := range c.Nodes() {
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, filepath.Base(c.Namespace(name)), joined(c.plan.nodeAddresses(i)), states[name])
	}
	return table.Flush()
}

// nodeStates are for people to read.
func (c *Cluster) nodeStates(ctx context.Context) map[string]string {
	states := map[string]string{}
	for _, name := range c.Nodes() {
		states[name] = "unknown to the API server"
	}
	client, err := c.api()
	if err == nil {
		defer client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		var list []nodeStatus
		if list, err = c.nodes(ctx, client); err == nil {
			for _, node := range list {
				states[node.Metadata.Name] = "Ready"
				if ready, why := node.ready(); !ready {
					states[node.Metadata.Name] = "NotReady: " + why
				}
			}
			return states
		}
	}
	for _, name := range c.Nodes() {
		states[name] = "the API server does not answer: " + err.Error()
	}
	return states
}

// LogFiles finds the logs of a component ("kube-apiserver"), of a component on
// a node ("kubelet-worker-2"), or of a whole node.
func (c *Cluster) LogFiles(of string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(c.Logs(), "*.log"))
	if err != nil {
		return nil, fmt.Errorf("find logs: %w", err)
	}
	var found, known []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		component, node, onNode := cutNode(name)
		if name == of || onNode && (node == of || component == of) {
			found = append(found, file)
		}
		known = append(known, component, node)
	}
	if len(found) == 0 {
		slices.Sort(known)
		return nil, fmt.Errorf("find logs of %q: there are those of %s", of, strings.TrimSpace(strings.Join(slices.Compact(known), " ")))
	}
	return found, nil
}

// cutNode takes the node's name off "kubelet-worker-2".
func cutNode(name string) (component, node string, ok bool) {
	component, number, ok := strings.Cut(name, "-worker-")
	if ok {
		node = "worker-" + number
	}
	return component, node, ok
}

// CopyLogs writes logs one after the other, each under its name where there are
// several.
func CopyLogs(out io.Writer, files []string) error {
	for _, file := range files {
		if len(files) > 1 {
			fmt.Fprintf(out, "==> %s <==\n", file)
		}
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		_, err = io.Copy(out, f)
		f.Close()
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
	}
	return nil
}
