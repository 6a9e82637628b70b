package main

import (
	"context"
	"log/slog"
	"os"

	"poplin.dev/poplin/daemon/cleanup"
)

// clean undoes what install and the daemon did to this node.
func clean(ctx context.Context, args []string) error {
	cfg := cleanup.Config{Out: os.Stdout, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	f := flags("poplind cleanup")
	f.StringVar(&cfg.Root, "root", "/", "`directory` where the node's files are seen, for use in a container")
	f.StringVar(&cfg.ConfDir, "cni-conf-dir", "/etc/cni/net.d", "`directory` of the conflist, cni.confDir of the configuration")
	f.StringVar(&cfg.BinDir, "cni-bin-dir", "/opt/cni/bin", "`directory` of the CNI plugin")
	f.StringVar(&cfg.Network, "network", "poplin", "`name` of the network, cni.name of the configuration")
	f.StringVar(&cfg.DataDir, "ipam-dir", "/var/lib/cni/networks", "`directory` of the pods' addresses")
	f.StringVar(&cfg.StateDir, "state-dir", "/var/lib/poplin", "`directory` of what survives a reboot")
	f.StringVar(&cfg.Socket, "socket", "/run/poplin/poplind.sock", "`path` of the daemon's socket")
	f.BoolVar(&cfg.Force, "force", false, "take the network from pods that still have it")
	stay := f.Bool("stay", false, "when all is done, wait for a signal: a DaemonSet's containers may not end")
	if done, err := parse(f, args); done || err != nil {
		return err
	}
	if err := cleanup.Run(ctx, cfg); err != nil || !*stay {
		return err
	}
	<-ctx.Done()
	return nil
}
