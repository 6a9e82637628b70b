package cluster

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/plan"
	"poplin.dev/poplin/test/cluster/process"
)

// Status writes what there is, what runs, and what the API server says.
func (c *Cluster) Status(ctx context.Context, out io.Writer) error {
	o := c.Options
	fmt.Fprintf(out, "cluster %s: Kubernetes %s, %s, family %s, network %s, proxy %s, runtime %s\n", o.Name, c.Kubernetes.Version, c.layout, o.Family, o.Network, o.Proxy, o.Runtime)
	fmt.Fprintf(out, "API server %s, on worker-1; pods %s, Services %s; logs in %s\n\n", c.Server(), plan.Joined(c.plan.Pods), plan.Joined(c.plan.Services), c.Logs())
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
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\n", name, filepath.Base(c.Namespace(name)), plan.Joined(c.plan.NodeAddresses(i)), states[name])
	}
	return table.Flush()
}

// nodeStates are for people to read.
func (c *Cluster) nodeStates(ctx context.Context) map[string]string {
	states := map[string]string{}
	for _, name := range c.Nodes() {
		states[name] = "unknown to the API server"
	}
	client, err := c.API()
	if err == nil {
		defer client.Close()
		ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
		defer cancel()
		var list []api.Node
		if list, err = client.Nodes(ctx); err == nil {
			for _, node := range list {
				states[node.Metadata.Name] = "Ready"
				if ready, why := node.Ready(); !ready {
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
