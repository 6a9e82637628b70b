// Package cleanup makes a node what it was before Poplin: the reverse of the
// daemon. Inputs are the node's files and kernel, and the sysctls' values that
// the daemon remembered; output is a line for each thing that was removed or
// restored. What one step fails with does not stop the next, and a later run
// goes on where this one ended. It touches nothing of others, and refuses to
// begin while a daemon runs, which would put everything back, or while pods
// have their network from Poplin, unless it is told that they may lose it.
package cleanup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/before"
	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/apply/nft"
	"poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/plugins/call"
	hostports "poplin.dev/poplin/plugins/hostport/apply"
	"poplin.dev/poplin/plugins/poplin"
	links "poplin.dev/poplin/plugins/poplin/apply"
)

// Config says where things are.
type Config struct {
	// Root is where the node's files are seen; "/" on the node itself.
	Root string
	// ConfDir, BinDir, DataDir, StateDir and Socket are places on the node.
	ConfDir, BinDir, DataDir, StateDir, Socket string
	// Network is the name of the network in its conflist.
	Network string
	// Force takes the network from pods that still have it.
	Force bool
	// Out gets the report, Log what is of interest to nobody else.
	Out io.Writer
	Log *slog.Logger
}

// step is one kind of thing that goes. It returns what it did, "" for nothing.
type step struct {
	name string
	do   func(context.Context) (did string, err error)
}

// Run cleans the node of whose network namespace the calling thread is.
func Run(ctx context.Context, cfg Config) error {
	c := cleaner{cfg}
	if err := errors.Join(c.refuseBesideDaemon(), c.refuseUnderPods()); err != nil {
		return err
	}
	// New pods are stopped first, and what is remembered goes last: until
	// then a run can be repeated. The network goes before the files that say
	// what belongs to it.
	steps := []step{
		{"conflist", c.conflist},
		{"pods' attachments", c.attachments},
		{"host ports", c.hostPorts},
		{"Services", c.services},
		{"policies", c.policies},
		{"masquerade and guards", c.rules},
		{"overlay", c.overlay},
		{"sysctls", c.sysctls},
		{"addresses", c.addresses},
		{"CNI plugin", c.plugin},
		{"files of other programs", c.hostFiles},
	}
	var errs []error
	for _, s := range steps {
		errs = append(errs, c.report(ctx, s))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w\nrun it again: %s is kept until all else is done", err, cfg.StateDir)
	}
	return c.report(ctx, step{"state", c.state})
}

type cleaner struct{ Config }

func (c cleaner) report(ctx context.Context, s step) error {
	did, err := s.do(ctx)
	if err != nil {
		fmt.Fprintf(c.Out, "%s: failed: %v\n", s.name, err)
		return fmt.Errorf("%s: %w", s.name, err)
	}
	if did == "" {
		did = "nothing left"
	}
	fmt.Fprintf(c.Out, "%s: %s\n", s.name, did)
	return nil
}

// at is where a path of the node is seen.
func (c cleaner) at(path ...string) string {
	return filepath.Join(append([]string{c.Root}, path...)...)
}

func (c cleaner) refuseBesideDaemon() error {
	conn, err := net.DialTimeout("unix", c.at(c.Socket), time.Second)
	if err != nil {
		return nil
	}
	return errors.Join(errors.New("poplind runs on this node and would put everything back: delete its DaemonSet, or its static pod's manifest, and wait for it to end"), conn.Close())
}

func (c cleaner) refuseUnderPods() error {
	if c.Force {
		return nil
	}
	pods, err := links.Attached(c.Network)
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return nil
	}
	slices.Sort(pods)
	return fmt.Errorf("%d pods have their network from Poplin: %s: drain the node, or let them lose it (--force)", len(pods), strings.Join(pods, ", "))
}

func (c cleaner) conflist(context.Context) (string, error) {
	return list(install.Remove(c.at(c.ConfDir, conflist.File)))
}

// attachments are collected by the CNI plugin itself: those that no runtime
// knows, which is all.
func (c cleaner) attachments(context.Context) (string, error) {
	pods, err := links.Attached(c.Network)
	if err != nil {
		return "", err
	}
	stdin, err := json.Marshal(map[string]any{
		"cniVersion": "1.1.0", "name": c.Network, "type": "poplin", "stateDir": c.at(c.StateDir),
		"ipam": map[string]any{"type": "host-local"}, "cni.dev/valid-attachments": []any{},
	})
	if err != nil {
		return "", err
	}
	// Addresses go with their directory.
	ipam := poplin.IPAM{GC: func(call.Call) error { return nil }}
	err = poplin.Plugin{HostLocal: ipam}.Run(
		call.Call{Command: "GC", CNIVersion: "1.1.0", Network: c.Network, Stdin: stdin})
	if err != nil || len(pods) == 0 {
		return "", err
	}
	return fmt.Sprintf("taken from %d pods: %s", len(pods), strings.Join(pods, ", ")), nil
}

func (c cleaner) hostPorts(context.Context) (string, error) {
	kernel, err := hostports.Open()
	if err != nil {
		return "", err
	}
	defer kernel.Close()
	return "", kernel.Set(nil)
}

func (c cleaner) services(context.Context) (string, error) {
	table, err := vip.Open(vip.Config{Log: c.Log})
	if err != nil {
		return "", err
	}
	return "", errors.Join(table.Remove(), table.Close())
}

func (c cleaner) policies(context.Context) (string, error) {
	table, err := permit.Open(permit.Config{Log: c.Log})
	if err != nil {
		return "", err
	}
	return "", errors.Join(table.Remove(), table.Close())
}

func (c cleaner) rules(context.Context) (string, error) {
	table, err := nft.Open(nft.Config{Log: c.Log})
	if err != nil {
		return "", err
	}
	removed, err := table.Remove()
	if err := errors.Join(err, table.Close()); err != nil || !removed {
		return "", err
	}
	return "removed nftables table inet " + nft.Name, nil
}

func (c cleaner) overlay(ctx context.Context) (string, error) {
	res, err := overlay.Remove(ctx, c.Log)
	if err != nil || res.Removed == 0 {
		return "", err
	}
	return fmt.Sprintf("removed %d: the device, what is on it, routes, rules in other programs' tables", res.Removed), nil
}

func (c cleaner) sysctls(context.Context) (string, error) {
	changes, err := before.In(c.at(c.StateDir), c.Log).Changes()
	if err != nil {
		return "", err
	}
	tree, errs := sysctl.Tree{Root: c.at(sysctl.DefaultRoot)}, []error{}
	var did []string
	for _, change := range changes {
		undone, err := tree.Undo(change)
		errs = append(errs, err)
		if undone {
			did = append(did, fmt.Sprintf("net/%s is %s again", change.Key, change.Before))
		}
	}
	return strings.Join(did, ", "), errors.Join(errs...)
}

// addresses takes what the IPAM has of this network, and directories that
// hold nothing else.
func (c cleaner) addresses(context.Context) (string, error) {
	did, err := list(install.Remove(c.at(c.DataDir, c.Network), c.at(c.DataDir, ".poplin", c.Network)))
	return did, errors.Join(err, removeEmpty(c.at(c.DataDir, ".poplin")), removeEmpty(c.at(c.DataDir)))
}

func (c cleaner) plugin(context.Context) (string, error) {
	return list(install.Remove(c.at(c.BinDir, "poplin")))
}

func (c cleaner) hostFiles(context.Context) (string, error) {
	return list(install.Remove(install.HostFiles(c.at("/etc"))...))
}

func (c cleaner) state(context.Context) (string, error) {
	return list(install.Remove(c.at(filepath.Dir(c.Socket)), c.at(c.StateDir)))
}

func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0 {
		return nil
	}
	if err == nil {
		err = os.Remove(dir)
	}
	if err != nil {
		return fmt.Errorf("remove directory if it is empty: %w", err)
	}
	return nil
}

// list is what install.Remove says.
func list(removed []string, err error) (string, error) {
	if len(removed) == 0 {
		return "", err
	}
	return "removed " + strings.Join(removed, ", "), err
}
