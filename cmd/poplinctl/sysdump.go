package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"poplin.dev/poplin/pkg/kube/dump"
	"poplin.dev/poplin/pkg/kube/person"
)

// sysdump writes the archive for a bug report.
func sysdump(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl sysdump", flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	to := f.String("f", "", "`file` to write; poplin-sysdump-DATE.tar.gz if not given")
	timeout := f.Duration("timeout", 5*time.Minute, "how long to gather")
	if err := parse(f, args, nil); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	c, err := person.New(*kubeconfig)
	if err != nil {
		return err
	}
	now := time.Now()
	if *to == "" {
		*to = "poplin-sysdump-" + now.UTC().Format("20060102-150405") + ".tar.gz"
	}
	// For its owner alone: it says much about a cluster.
	file, err := os.OpenFile(*to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write the archive: %w", err)
	}
	missing, err := dump.Write(ctx, c, file, now)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", *to, err)
	}
	for _, m := range missing {
		fmt.Fprintln(os.Stderr, "not in it:", m)
	}
	fmt.Printf("wrote %s; Secrets were not asked for, and environments, commands and annotations are left out. Look at it before you give it away.\n", *to)
	return nil
}
