package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/loop"
)

// endpointsFile keeps the API server's endpoints over a restart: then they
// may be the only way to it, because the Service's address needs what only
// the API server can tell.
type endpointsFile struct{ dir string }

func (f endpointsFile) path() string { return filepath.Join(f.dir, "apiserver.json") }

// load never fails a start: the file is one of several ways.
func (f endpointsFile) load(log *slog.Logger) []string {
	var state struct {
		Endpoints []string `json:"endpoints"`
	}
	text, err := os.ReadFile(f.path())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &state)
	}
	for _, e := range state.Endpoints {
		if _, _, bad := net.SplitHostPort(e); bad != nil {
			err = errors.Join(err, bad)
		}
	}
	if err != nil {
		log.Warn("ignore the saved endpoints of the API server", "file", f.path(), "error", err)
		return nil
	}
	return state.Endpoints
}

func (f endpointsFile) save(endpoints []string) error {
	text, err := json.Marshal(map[string][]string{"endpoints": endpoints})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.dir, 0o700); err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	_, err = install.File(f.path(), 0o600, append(text, '\n'))
	return err
}

// configFile follows the configuration file. It implements loop.Task.
type configFile struct {
	path    string
	current config.Config
	level   *slog.LevelVar
	log     *slog.Logger
	// report is told which keys wait for a restart, or why the file cannot
	// be used.
	report func(pending []string, err error)
	// seen is the text that is in force, problem why another is not.
	seen    []byte
	problem string
}

func (f *configFile) String() string { return "configuration" }

// Ready is closed: the file was read before the tasks started.
func (f *configFile) Ready() <-chan struct{} {
	ready := loop.NewReady()
	ready.Set()
	return ready.Done()
}

// Run reads the file now and then: a ConfigMap's volume changes by a renamed
// link two directories up, which is more to watch than to read.
func (f *configFile) Run(ctx context.Context) error {
	queue := loop.NewQueue[string](0, 0)
	queue.Add(f.path)
	w := loop.Worker[string]{
		Name: f.String(), Queue: queue, Log: f.log, Every: reread, Again: f.path,
		Do: func(context.Context, []string) error { f.read(); return nil },
	}
	return w.Run(ctx)
}

func (f *configFile) read() {
	text, err := os.ReadFile(f.path)
	if err == nil && f.seen != nil && bytes.Equal(text, f.seen) {
		return
	}
	var next config.Config
	if err == nil {
		next, err = config.Parse(text)
	}
	if err != nil {
		f.fail(err)
		return
	}
	f.seen, f.problem = text, ""
	if next.LogLevel != f.level.Level() {
		f.log.Info("log level changes", "from", f.level.Level(), "to", next.LogLevel)
		f.level.Set(next.LogLevel)
	}
	var pending []string
	for _, key := range config.Changes(f.current, next) {
		if !key.Live() {
			pending = append(pending, key.Path)
		}
	}
	if len(pending) > 0 {
		f.log.Warn("the configuration has changed; these keys take effect when the daemon restarts (kubectl -n poplin-system rollout restart daemonset/poplind)", "keys", strings.Join(pending, ", "))
	}
	f.report(pending, nil)
}

// fail is told of a file that cannot be used, again and again; it logs once.
func (f *configFile) fail(err error) {
	if err.Error() != f.problem {
		f.log.Error("the configuration file cannot be used; the last good one stays in force", "file", f.path, "error", err)
	}
	f.seen, f.problem = nil, err.Error()
	f.report(nil, err)
}
