// Command herd is the API side of many daemons in one process: each has the
// clients and views that poplind has, and no kernel. Inputs are how many, and
// a kubeconfig; output is a line of JSON every second: how many have a complete
// view, and what all of them asked for and were told. It refuses to write.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/pkg/kube"
)

// Line is what it says.
type Line struct {
	// Complete are the daemons that know all there is, Took is when the last
	// of them did.
	Complete int
	Took     time.Duration
	// Requests are lists and watches opened, Events what watches told.
	Requests, Events int64
}

// count implements kube.Observer.
type count struct{ requests, events atomic.Int64 }

func (c *count) Dialed(string, error)    {}
func (c *count) Requested(string, error) { c.requests.Add(1) }
func (c *count) Heard(string)            { c.events.Add(1) }

func main() {
	n := flag.Int("n", 100, "how `many`")
	kubeconfig := flag.String("kubeconfig", "", "`file` that leads to the API server")
	node := flag.String("node", "peer-%05d", "`name` of the nodes, with their number in it")
	flag.Parse()
	if err := run(*n, *kubeconfig, *node); err != nil {
		fmt.Fprintln(os.Stderr, "herd:", err)
		os.Exit(1)
	}
}

// task is a part of a daemon that reads.
type task interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

func run(n int, kubeconfig, node string) error {
	ctx, began := context.Background(), time.Now()
	counted := &count{}
	var complete, last atomic.Int64
	for i := range n {
		tasks, err := daemon(kubeconfig, fmt.Sprintf(node, i), counted)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			go func() { _ = t.Run(ctx) }() // they end with the process
		}
		go func() {
			for _, t := range tasks {
				<-t.Ready()
			}
			last.Store(int64(time.Since(began)))
			complete.Add(1)
		}()
	}
	out := json.NewEncoder(os.Stdout)
	for range time.Tick(time.Second) {
		line := Line{int(complete.Load()), time.Duration(last.Load()), counted.requests.Load(), counted.events.Load()}
		if err := out.Encode(line); err != nil {
			return err
		}
	}
	return nil
}

func daemon(kubeconfig, node string, counted *count) ([]task, error) {
	client, err := kube.New(kube.Config{NodeName: node, Kubeconfig: kubeconfig, Log: slog.New(slog.DiscardHandler), Observer: counted})
	if err != nil {
		return nil, err
	}
	services, err := client.Services()
	if err != nil {
		return nil, err
	}
	policies, err := client.Policies()
	return []task{client, services, policies}, err
}
