// Package timings receives what the CNI plugin says of its calls: how long each
// phase of an ADD took. Input is a datagram socket that only root may write to;
// output is a call for each phase. It refuses phases it does not know, so that
// what is counted stays bounded, and it never keeps the plugin waiting: a plugin
// that finds no socket, or a full one, goes on.
package timings

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/plugins/poplin"
)

// Deps is all the module uses.
type Deps struct {
	// ReadyFile is the one that the plugin knows the node by.
	ReadyFile string
	// Report gets how long a phase lasted; it must not block.
	Report func(phase string, took time.Duration)
	Log    *slog.Logger
}

// Module listens; it implements loop.Task.
type Module struct {
	deps  Deps
	ready *loop.Ready
}

// New makes the module; Run starts it.
func New(deps Deps) *Module { return &Module{deps: deps, ready: loop.NewReady()} }

// Ready implements loop.Task.
func (m *Module) Ready() <-chan struct{} { return m.ready.Done() }

// String implements loop.Task.
func (m *Module) String() string { return "timings" }

// Run implements loop.Task. Without the socket, which costs nobody his network,
// nothing is counted.
func (m *Module) Run(ctx context.Context) error {
	conn, err := m.listen()
	m.ready.Set()
	if err != nil {
		m.deps.Log.Error("the CNI plugin's timings are not counted", "error", err)
		<-ctx.Done()
		return nil
	}
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	datagram := make([]byte, 1024)
	for {
		n, err := conn.Read(datagram)
		if err != nil {
			return nil // closed, as ctx has ended
		}
		m.take(datagram[:n])
	}
}

// listen puts the socket where a killed daemon's may still be.
func (m *Module) listen() (*net.UnixConn, error) {
	path := poplin.Timings(m.deps.ReadyFile)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

func (m *Module) take(datagram []byte) {
	var took map[string]int64
	if err := json.Unmarshal(datagram, &took); err != nil {
		m.deps.Log.Debug("ignore what is said of an ADD", "text", fmt.Sprintf("%q", datagram), "error", err)
		return
	}
	for phase, microseconds := range took {
		if slices.Contains(poplin.Phases, phase) && microseconds >= 0 {
			m.deps.Report(phase, time.Duration(microseconds)*time.Microsecond)
		}
	}
}
