package main

import (
	"context"
	"fmt"
	"strings"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/version"
)

// put brings this node what pods need of it before there is a daemon.
func put(ctx context.Context, args []string) error {
	f := flags("poplind install")
	from := f.String("from", "/poplin", "CNI plugin `binary` to install")
	to := f.String("to", "/opt/cni/bin", "`directory` where the container runtime looks for plugins")
	etc := f.String("etc", "", "the node's /etc: `directory` for files that keep systemd-networkd and NetworkManager from Poplin's devices, where these are")
	private := f.String("private", "", "`directories`, separated by commas, that are to be root's alone")
	if done, err := parse(f, args); done || err != nil {
		return err
	}
	for dir := range strings.SplitSeq(*private, ",") {
		if err := install.Private(dir); err != nil {
			return err
		}
	}
	if *etc != "" {
		written, err := install.Host(*etc)
		if err != nil {
			return fmt.Errorf("keep other programs from Poplin's devices: %w", err)
		}
		for _, path := range written {
			fmt.Println("wrote", path)
		}
	}
	changed, err := install.Plugin(ctx, *from, *to)
	if err != nil {
		return fmt.Errorf("install %s into %s: %w", *from, *to, err)
	}
	if changed {
		fmt.Printf("installed %s in %s, version %s\n", *from, *to, version.String())
	} else {
		fmt.Printf("%s in %s is already version %s\n", *from, *to, version.String())
	}
	return nil
}
