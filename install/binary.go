package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// verifyTimeout bounds the trial run of a binary.
const verifyTimeout = 10 * time.Second

// Plugin copies the CNI plugin binary from into dir, where the container
// runtime looks for plugins, and reports whether it had to. A plugin that is
// running keeps its old file. The copy is run once before it gets its name:
// a binary of another architecture, or a copy cut short, changes nothing.
func Plugin(ctx context.Context, from, dir string) (changed bool, err error) {
	content, err := os.ReadFile(from)
	if err != nil {
		return false, fmt.Errorf("read plugin: %w", err)
	}
	const mode = 0o755
	to := filepath.Join(dir, filepath.Base(from))
	if same(to, mode, content) {
		return false, nil
	}
	tmp, err := stage(to, mode, content)
	if err != nil {
		return false, err
	}
	if err := verify(ctx, tmp); err != nil {
		return false, errors.Join(fmt.Errorf("try the new %s (the old one stays): %w", to, err), os.Remove(tmp))
	}
	return true, move(tmp, to)
}

// verify asks a plugin for its versions (CNI specification, VERSION).
func verify(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, verifyTimeout)
	defer cancel()
	out, err := run(ctx, path)
	if err != nil {
		return err
	}
	var answer struct {
		Supported []string `json:"supportedVersions"`
	}
	if err := json.Unmarshal(out, &answer); err != nil || len(answer.Supported) == 0 {
		return fmt.Errorf("it answers %q to VERSION, which names no version", out)
	}
	return nil
}

func run(ctx context.Context, path string) ([]byte, error) {
	for {
		cmd := exec.CommandContext(ctx, path)
		cmd.Env = []string{"CNI_COMMAND=VERSION"}
		cmd.Stdin = strings.NewReader(`{"cniVersion":"1.0.0"}`)
		out, err := cmd.Output()
		// Another thread that forks at the wrong moment holds the file open
		// for writing until it executes: wait for it.
		if errors.Is(err, syscall.ETXTBSY) && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
			continue
		}
		return out, err
	}
}
