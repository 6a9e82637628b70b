// Package overview is every node at a glance. Inputs are what the API server
// shows of the nodes and what their daemons say of themselves; output is one list,
// and its text. A node that does not answer is shown with the reason. It refuses
// to guess: what a daemon does not say is not filled in.
package overview

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/kube/fleet"
)

// Node is one of them.
type Node struct {
	kube.NodeStatus
	// Daemon is what it says of itself, or nil for Unreachable.
	Daemon      *status.Report `json:"daemon,omitempty"`
	Unreachable string         `json:"unreachable,omitempty"`
}

// Command has a daemon's container say what Join reads.
func Command() []string { return []string{"/poplinctl", "status", "-o", "json"} }

// Read asks the API server for the nodes, and each of their daemons, which may
// take as long as patience.
func Read(ctx context.Context, kubeconfig string, patience time.Duration) ([]Node, error) {
	c, err := kube.New(kube.Config{Kubeconfig: kubeconfig, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, err
	}
	nodes, err := c.Overview(ctx)
	if err != nil {
		return nil, err
	}
	names := make([]string, len(nodes))
	for i, n := range nodes {
		names[i] = n.Name
	}
	answers, err := fleet.Run(ctx, kubeconfig, names, Command(), patience)
	if err != nil {
		return nil, err
	}
	return Join(nodes, answers), nil
}

// Join puts both views of the nodes together, in the order of the first.
func Join(nodes []kube.NodeStatus, answers []fleet.Answer) []Node {
	list := make([]Node, len(nodes))
	for i, n := range nodes {
		list[i].NodeStatus = n
		at := slices.IndexFunc(answers, func(a fleet.Answer) bool { return a.Node == n.Name })
		if at < 0 {
			list[i].Unreachable = "it was not asked"
			continue
		}
		a, r := answers[at], status.Report{}
		if a.Err == nil {
			if err := json.Unmarshal(a.Out, &r); err != nil {
				a.Err = fmt.Errorf("its answer is not understood: %w", err)
			}
		}
		if a.Err != nil {
			list[i].Unreachable = a.Err.Error()
			continue
		}
		list[i].Daemon = &r
	}
	return list
}

// Well reports that every node is as it should be.
func Well(list []Node) bool {
	return !slices.ContainsFunc(list, func(n Node) bool { return len(n.problems()) > 0 })
}

// problems are what is wrong with a node, and what its daemon waits for.
func (n Node) problems() (list []string) {
	if n.Problem != "" {
		list = append(list, n.Problem)
	}
	if !n.Ready {
		list = append(list, "the Node is not Ready")
	}
	if n.Daemon == nil {
		return append(list, "daemon: "+n.Unreachable)
	}
	for _, t := range n.Daemon.Tasks {
		if t.Waiting != "" {
			list = append(list, t.Name+": waits for "+t.Waiting)
		}
	}
	for _, r := range n.Daemon.Refused {
		list = append(list, fmt.Sprintf("does not send to %s: %s", r.Node, r.Reason))
	}
	if len(n.Daemon.Silent) > 0 {
		list = append(list, "no answer through the pod network of "+strings.Join(n.Daemon.Silent, ", "))
	}
	if n.Daemon.ConfigError != "" {
		list = append(list, "configuration: "+strings.ReplaceAll(n.Daemon.ConfigError, "\n", "; "))
	}
	return list
}

// layers are the daemon's tasks at a glance: those that wait stand out.
func (n Node) layers() string {
	if n.Daemon == nil {
		return "-"
	}
	var well, wait []string
	for _, t := range n.Daemon.Tasks {
		if t.Waiting == "" {
			well = append(well, t.Name)
		} else {
			wait = append(wait, strings.ToUpper(t.Name))
		}
	}
	if len(wait) == 0 {
		return fmt.Sprintf("all %d ok", len(well))
	}
	return strings.Join(wait, ",") + " wait"
}

// peers are those that a node reaches, of those it programs.
func (n Node) peers() string {
	if n.Daemon == nil {
		return "-"
	}
	return fmt.Sprintf("%d/%d", n.Daemon.Peers-len(n.Daemon.Silent), n.Daemon.Peers+len(n.Daemon.Refused))
}

// Text is the list for people, and below it what is wrong, node by node.
func Text(w io.Writer, list []Node) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "NODE\tREADY\tVERSION\tLAYERS\tPEERS\tPOD RANGES\tVTEP\tMAC\tMTU")
	for _, n := range list {
		version, mac, mtu, vtep := "-", cmp.Or(n.MAC, "-"), "-", "-"
		if n.Daemon != nil {
			version = n.Daemon.Version
		}
		if n.VTEP.IsValid() {
			mtu, vtep = fmt.Sprint(n.MTU), n.VTEP.String()
		}
		fmt.Fprintf(t, "%s\t%v\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", n.Name, n.Ready, version, n.layers(), n.peers(),
			cmp.Or(strings.Trim(fmt.Sprint(n.PodCIDRs), "[]"), "-"), vtep, mac, mtu)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	for _, n := range list {
		for _, p := range n.problems() {
			if _, err := fmt.Fprintf(w, "%s: %s\n", n.Name, p); err != nil {
				return err
			}
		}
	}
	return nil
}
