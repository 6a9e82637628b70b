// Command reader is the API side of one daemon: it has the clients and views that
// poplind has, and no kernel. Inputs are a node's name and a kubeconfig; output is
// a line of JSON every second: whether its view is complete, and what it asked for
// and was told. It refuses to write.
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
	// Took is until it knew all there is; 0 before.
	Took time.Duration
	// Requests are lists and watches opened, Events what watches told.
	Requests, Events int64
}

// count implements kube.Observer.
type count struct{ requests, events atomic.Int64 }

func (c *count) Dialed(string, error)    {}
func (c *count) Requested(string, error) { c.requests.Add(1) }
func (c *count) Heard(string)            { c.events.Add(1) }

func main() {
	kubeconfig := flag.String("kubeconfig", "", "`file` that leads to the API server")
	node := flag.String("node", "", "`name` of the daemon's node")
	flag.Parse()
	if err := run(*kubeconfig, *node); err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(1)
	}
}

// task is a part of a daemon that reads.
type task interface {
	Run(ctx context.Context) error
	Ready() <-chan struct{}
}

func run(kubeconfig, node string) error {
	began, counted := time.Now(), &count{}
	tasks, err := daemon(kubeconfig, node, counted)
	if err != nil {
		return err
	}
	for _, t := range tasks {
		go func() { _ = t.Run(context.Background()) }() // they end with the process
	}
	var took atomic.Int64
	go func() {
		for _, t := range tasks {
			<-t.Ready()
		}
		took.Store(int64(time.Since(began)))
	}()
	out := json.NewEncoder(os.Stdout)
	for range time.Tick(time.Second) {
		if err := out.Encode(Line{time.Duration(took.Load()), counted.requests.Load(), counted.events.Load()}); err != nil {
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
