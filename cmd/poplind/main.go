// Command poplind keeps one node part of the pod network. Its configuration
// is one file (docs/operate.md); flags only say where things are.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"poplin.dev/poplin/daemon"
	"poplin.dev/poplin/pkg/version"
)

const usage = `usage:
  poplind [flags]            keep this node part of the pod network
  poplind install [flags]    put the CNI plugin on this node
  poplind cleanup [flags]    make this node what it was before
  poplind query [flags]      say what this node holds, as JSON for poplinctl
  poplind version            say which build this is
`

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "poplind:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	command := ""
	if len(args) > 0 && args[0] != "" && args[0][0] != '-' {
		command, args = args[0], args[1:]
	}
	switch command {
	case "":
		return serve(ctx, args)
	case "install":
		return put(ctx, args)
	case "cleanup":
		return clean(ctx, args)
	case "query":
		return ask(ctx, args)
	case "version":
		fmt.Println("poplind", version.String())
		return nil
	}
	return fmt.Errorf("unknown command %q\n%s", command, usage)
}

func serve(ctx context.Context, args []string) error {
	cfg := daemon.Config{NodeName: os.Getenv("NODE_NAME"), Log: os.Stderr}
	f := flags("poplind")
	f.StringVar(&cfg.File, "config", "/etc/poplin/config.yaml", "configuration `file`")
	f.StringVar(&cfg.Kubeconfig, "kubeconfig", "", "kubeconfig `file`, for a static pod and for development")
	f.StringVar(&cfg.StateDir, "state-dir", "/var/lib/poplin", "`directory` of what must survive a reboot")
	f.StringVar(&cfg.Socket, "socket", "/run/poplin/poplind.sock", "`path` of the socket for poplinctl")
	f.StringVar(&cfg.SysctlRoot, "sysctl-root", "/proc/sys/net", "`directory` where /proc/sys/net can be written")
	if done, err := parse(f, args); done || err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		// Most of what the daemon allocates it allocates at its start; with
		// Go's default a node would keep room for twice that.
		debug.SetGCPercent(50)
	}
	return daemon.Run(ctx, cfg)
}

func flags(name string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.Bool("version", false, "say which build this is")
	f.Usage = func() {
		fmt.Fprint(f.Output(), usage, "flags of ", name, ":\n")
		f.PrintDefaults()
	}
	return f
}

// parse reports done where there is nothing left to do.
func parse(f *flag.FlagSet, args []string) (done bool, err error) {
	if err := f.Parse(args); err != nil {
		return false, err
	}
	if f.NArg() > 0 {
		return false, fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	if f.Lookup("version").Value.String() == "true" {
		fmt.Println("poplind", version.String())
		return true, nil
	}
	return false, nil
}
