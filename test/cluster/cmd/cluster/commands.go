package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/tools"
)

func up(ctx context.Context, args arguments) error {
	var flags flag.FlagSet
	o := cluster.Options{Output: os.Stdout}
	flags.StringVar(&o.Name, "name", cluster.DefaultName, "name of the cluster")
	flags.IntVar(&o.Nodes, "nodes", 3, "number of nodes: worker-1, worker-2, ...")
	flags.StringVar(&o.Family, "family", "dual", "addresses of nodes, pods and Services: ipv4, ipv6 or dual")
	flags.StringVar(&o.Network, "network", "poplin", "pod network: poplin or none")
	flags.StringVar(&o.Proxy, "proxy", "", "Services: poplin (default with network poplin), kube-proxy (default without) or none")
	flags.StringVar(&o.Runtime, "runtime", cluster.RuntimeDebian, "container runtime: debian (containerd of Debian 12) or containerd-2")
	flags.StringVar(&o.Version, "kubernetes-version", "", "such as 1.36 (default: that of test/cluster/kubernetes)")
	flags.IntVar(&o.Routed, "routed", 0, "put the worker of this number behind a router")
	flags.StringVar(&o.Image, "image", "", "archive of Poplin's image (default dist/poplin-image.tar)")
	flags.StringVar(&o.Manifest, "manifest", "", "Poplin's manifest (default install/manifests/poplin.yaml)")
	flags.BoolVar(&o.Keep, "keep", false, "keep what there is of the cluster when up fails")
	if _, _, err := args.parse(&flags, 0, 0, false); err != nil {
		return err
	}
	c, err := cluster.Up(ctx, o)
	if err != nil {
		return err
	}
	fmt.Printf("\n  cluster kubectl --name %s -- get nodes -o wide\n  cluster status --name %s\n  cluster down --name %s\n", c.Name(), c.Name(), c.Name())
	return nil
}

func down(ctx context.Context, args arguments) error {
	var flags flag.FlagSet
	name := nameFlag(&flags)
	if _, _, err := args.parse(&flags, 0, 0, false); err != nil {
		return err
	}
	return cluster.Down(ctx, *name, os.Stdout)
}

func status(ctx context.Context, args arguments) error {
	c, _, _, err := args.open(0, 0, false)
	if err != nil {
		return err
	}
	return c.Status(ctx, os.Stdout)
}

func kubeconfig(_ context.Context, args arguments) error {
	c, _, _, err := args.open(0, 0, false)
	if err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "# %s\n# %s is reached from within the cluster: ip netns exec %s-worker-1 ..., or cluster kubectl -- ...\n", c.Kubeconfig(), c.Server(), c.Name())
	return printFile(c.Kubeconfig())
}

func kubectl(_ context.Context, args arguments) error {
	c, _, after, err := args.open(0, 0, true)
	if err != nil {
		return err
	}
	// Not our context: an interrupt reaches the child itself, and it decides.
	cmd, err := c.KubectlCommand(context.Background(), after...)
	if err != nil {
		return err
	}
	return attached(cmd)
}

func execute(_ context.Context, args arguments) error {
	c, before, after, err := args.open(1, 1, true)
	if err != nil {
		return err
	}
	cmd, err := c.Command(context.Background(), before[0], after...)
	if err != nil {
		return err
	}
	return attached(cmd)
}

func attached(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	return cmd.Run()
}

func power(ctx context.Context, args arguments) error {
	c, before, _, err := args.open(2, 2, false)
	if err != nil {
		return err
	}
	switch before[0] {
	case "stop":
		return c.StopNode(ctx, before[1])
	case "start":
		return c.StartNode(ctx, before[1])
	}
	return fmt.Errorf("read command node %q: want stop or start", before[0])
}

func loadImage(ctx context.Context, args arguments) error {
	c, before, _, err := args.open(1, 2, false)
	if err != nil {
		return err
	}
	return c.LoadImage(ctx, before[0], strings.Join(before[1:], ""))
}

func gather(ctx context.Context, args arguments) error {
	var flags flag.FlagSet
	var want tools.Want
	flags.BoolVar(&want.Conformance, "conformance", false, "also Kubernetes' conformance suite")
	flags.BoolVar(&want.Containerd, "containerd", false, "also a containerd for up --runtime containerd-2")
	flags.StringVar(&want.Kubernetes, "kubernetes-version", "", "such as 1.36 (default: that of test/cluster/kubernetes)")
	if _, _, err := args.parse(&flags, 0, 0, false); err != nil {
		return err
	}
	return cluster.Tools(ctx, want, os.Stdout)
}
