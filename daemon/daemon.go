// Package daemon is poplind: it joins the API server, the kernel and the
// container runtime of one node. Inputs are this node's name and the place of
// one configuration file; outputs are what its tasks keep in place. Every
// task stands in Run, in plain sight. It refuses to start with a
// configuration that it does not understand. When it ends, it leaves
// everything in place: the network does not depend on a running daemon.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"poplin.dev/poplin/daemon/before"
	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/hostports"
	"poplin.dev/poplin/daemon/ipam"
	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/daemon/podlinks"
	"poplin.dev/poplin/daemon/reach"
	"poplin.dev/poplin/daemon/snapshot"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/daemon/timings"
	"poplin.dev/poplin/pkg/apply/nft"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/kube"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/metrics"
	"poplin.dev/poplin/pkg/version"
)

// Config is what is not in the configuration file.
type Config struct {
	// NodeName is this node's name in the cluster.
	NodeName string
	// File is the configuration file.
	File string
	// Kubeconfig replaces the pod's service account, which a static pod has
	// not.
	Kubeconfig string
	// Credentials is where the service account is mounted; empty is where
	// Kubernetes mounts it.
	Credentials string
	// StateDir survives a reboot, Socket is for poplinctl, SysctlRoot is
	// where /proc/sys/net can be written.
	StateDir, Socket, SysctlRoot string
	// IPAMDir and CNICache are where addresses and the runtime's attachments
	// are kept; empty is where everybody keeps them.
	IPAMDir, CNICache string
	// Log is where lines of log go.
	Log io.Writer
}

const (
	// resync is how often kernel and files are read again without an event.
	resync = time.Minute
	// orphanGrace is how long an attachment must have been nobody's.
	orphanGrace = 2 * time.Minute
	// reread is how often configuration and conflist are looked at.
	reread = 5 * time.Second
	// grace is how long a starting daemon waits for the API server before
	// it restores what it last knew.
	grace = 3 * time.Second
)

// Run is the daemon's life. It ends without an error when ctx does.
func Run(ctx context.Context, cfg Config) error {
	if cfg.NodeName == "" {
		return errors.New("learn this node's name: set NODE_NAME from the pod's spec.nodeName")
	}
	settings, err := readConfig(cfg.File)
	if err != nil {
		return err
	}
	level := &slog.LevelVar{}
	level.Set(settings.LogLevel)
	log := newLog(cfg.Log, settings.LogFormat, level)
	log.Info("poplind starts", "version", version.Version, "commit", version.Commit, "node", cfg.NodeName)

	count := metrics.New()
	heard := newContact(count)
	saved := endpointsFile{dir: cfg.StateDir}
	cluster, err := kube.New(kube.Config{
		NodeName: cfg.NodeName, Kubeconfig: cfg.Kubeconfig, Credentials: cfg.Credentials,
		Endpoints: settings.APIServer.Endpoints, Saved: saved.load(log), Save: saved.save,
		Log: log, Observer: heard,
	})
	if err != nil {
		return err
	}
	known := snapshot.New(snapshot.Deps{
		Source: cluster, Node: cfg.NodeName, Path: filepath.Join(cfg.StateDir, "nodes.json"), Grace: grace, Log: log,
	})
	now := newState(cfg, settings, cluster, known, heard, count)
	forPlugin := conflistConfig(settings, cfg.Socket)
	network := conflist.New(conflist.Deps{
		Config:   forPlugin,
		Announce: cluster.NetworkAvailable,
		Report:   now.conflist,
		Log:      log,
		Resync:   reread,
	})
	now.network = network
	// The kernel knows the owner of a table by its socket: one for all modules.
	table, err := nft.Open(nft.Config{Log: log})
	if err != nil {
		return err
	}
	defer table.Close()
	count.GuardDrops(guardDrops(table, log))
	count.Conntrack(conntrack(cfg.SysctlRoot))
	memory := before.In(cfg.StateDir, log)
	fabric := overlay.New(overlay.Deps{
		Config:    overlayConfig(settings, cfg.SysctlRoot),
		Source:    known,
		Publisher: cluster,
		Table:     table,
		Note:      memory.Note,
		Report:    now.overlay,
		Log:       log,
	})
	adds := timings.New(timings.Deps{ReadyFile: forPlugin.ReadyFile, Report: count.Add, Log: log})
	now.path = reach.New(reach.Deps{Report: now.reached, Log: log, Every: asking})
	vips, serving, err := newServices(now, cfg.SysctlRoot, memory.Note, log)
	if err != nil {
		return err
	}
	now.vips = vips
	verdicts, judging, err := newPolicy(now, cfg.StateDir, log)
	if err != nil {
		return err
	}
	now.verdicts = verdicts
	file := &configFile{path: cfg.File, current: settings, level: level, log: log, report: now.config}
	asked := status.Deps{
		Health: settings.Health.Address, Metrics: settings.Metrics.Address, Socket: cfg.Socket,
		CertFile: settings.Metrics.CertFile, KeyFile: settings.Metrics.KeyFile, Node: cfg.NodeName,
		Exported: count.Handler(), Alive: now.alive, Report: now.report, Cluster: now.objects, Log: log,
		Config: func() ([]byte, error) { return os.ReadFile(cfg.File) },
	}
	if settings.Metrics.Reachable() {
		if asked.Access, err = cluster.Access(); err != nil {
			return err
		}
	}
	if verdicts != nil {
		asked.Isolation = verdicts.gate
	}
	answers := status.New(asked)
	now.answers = answers
	// Stopped from last to first: answers stay until the end of the others.
	tasks := append([]loop.Task{answers, watchdog{now}, file, cluster, known, adds}, ofPlugin(now, cfg, filepath.Join(forPlugin.Dir, conflist.File), log)...)
	tasks = append(append(tasks, fabric, now.path, network), serving...)
	tasks = append(tasks, judging...)
	return loop.Group(now.pulse.Watch(ctx), log, tasks...)
}

// ofPlugin are the tasks that look after what the CNI plugin has made.
func ofPlugin(now *state, cfg Config, conflist string, log *slog.Logger) []loop.Task {
	count, name := now.count, now.settings.CNI.Name
	return []loop.Task{
		ipam.New(ipam.Deps{
			Network: name, DataDir: cfg.IPAMDir, Cache: cfg.CNICache, Every: resync, Grace: orphanGrace, Conflist: conflist,
			Report: func(took time.Duration, err error) { count.Pass("ipam", took, err) },
			Usage:  func(r netip.Addr, taken, free float64) { count.Addresses(family(r), taken, free) }, Log: log,
		}),
		hostports.New(hostports.Deps{
			Dir:    filepath.Join(cfg.StateDir, "hostports"),
			Report: func(took time.Duration, err error) { count.Pass("hostports", took, err) },
			Log:    log, Resync: resync,
		}),
		podlinks.New(podlinks.Deps{
			Network: name, Cache: cfg.CNICache, Addresses: now.addresses, Report: now.ends, Log: log, Resync: resync,
		}),
	}
}

func readConfig(path string) (config.Config, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return config.Config{}, fmt.Errorf("read configuration (docs/operate.md says what is in it): %w", err)
	}
	c, err := config.Parse(text)
	if err != nil {
		return c, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return c, nil
}

func newLog(w io.Writer, format string, level slog.Leveler) *slog.Logger {
	options := &slog.HandlerOptions{Level: level}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func conflistConfig(c config.Config, socket string) conflist.Config {
	return conflist.Config{
		Dir: c.CNI.ConfDir, Name: c.CNI.Name, Capabilities: c.CNI.Capabilities, Plugins: c.CNI.Plugins,
		// Beside the socket, where nothing survives a reboot.
		ReadyFile: filepath.Join(filepath.Dir(socket), "ready"),
	}
}

func overlayConfig(c config.Config, sysctlRoot string) overlay.Config {
	return overlay.Config{
		VNI: uint32(c.Overlay.VNI), Port: uint16(c.Overlay.Port), MTU: c.Overlay.MTU, Interface: c.Overlay.Interface,
		NoTunnel: c.Overlay.Mode == config.ModeDirect, DirectRouting: c.Overlay.DirectRouting, OpenFirewalls: c.ForeignFirewall == config.FirewallOpen,
		Checksums:  c.Overlay.ChecksumOffload,
		Masquerade: c.Masquerade.Enabled, ExcludeCIDRs: c.Masquerade.ExcludeCIDRs, ClusterCIDRs: c.ClusterCIDRs,
		SysctlRoot: sysctlRoot, Resync: resync,
	}
}
