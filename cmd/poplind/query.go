package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"poplin.dev/poplin/daemon/query"
	"poplin.dev/poplin/pkg/facts"
)

// ask prints facts of this node as JSON. It is what poplinctl runs in the
// daemon's pod, so that whoever may do that there may read them.
func ask(ctx context.Context, args []string) error {
	f := flags("poplind query")
	p := query.Places{}
	f.StringVar(&p.Config, "config", "/etc/poplin/config.yaml", "configuration `file`")
	f.StringVar(&p.Socket, "socket", "/run/poplin/poplind.sock", "`path` of the daemon's socket")
	f.StringVar(&p.StateDir, "state-dir", "/var/lib/poplin", "`directory` of what survives a reboot")
	f.StringVar(&p.CNICache, "cache", "/var/lib/cni/results", "`directory` of the container runtime's attachments")
	kinds := f.String("kinds", "", "`list` of what is wanted: daemon, network, rules, flows, pods, peers, cluster; none is all but cluster")
	text := f.String("question", "", "`JSON` of flows and peers that narrow the answer; none is everything")
	watch := f.String("watch", "", "`JSON` of packets to look out for, and of requests to make; lines of the input say when")
	if done, err := parse(f, args); done || err != nil {
		return err
	}
	if *watch != "" {
		var w facts.Watch
		if err := json.Unmarshal([]byte(*watch), &w); err != nil {
			return fmt.Errorf("read watch: %w", err)
		}
		return query.Watch(ctx, p, w, os.Stdin, os.Stdout)
	}
	q := facts.Question{}
	if *text != "" {
		if err := json.Unmarshal([]byte(*text), &q); err != nil {
			return fmt.Errorf("read question: %w", err)
		}
	}
	for kind := range strings.SplitSeq(*kinds, ",") {
		if kind != "" {
			q.Kinds = append(q.Kinds, facts.Kind(kind))
		}
	}
	if len(q.Kinds) == 0 {
		q.Kinds = facts.Kinds()
	}
	return json.NewEncoder(os.Stdout).Encode(query.Run(ctx, p, os.Getenv("NODE_NAME"), q))
}
