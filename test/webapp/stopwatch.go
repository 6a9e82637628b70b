package webapp

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/exec"
	"time"
)

// StartUp measures how long a pod takes from its creation to Ready, as a
// watcher of the API sees both. command makes a kubectl process.
func StartUp(ctx context.Context, kubectl Kubectl, command func(ctx context.Context, args ...string) (*exec.Cmd, error), name, image string) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	watch, err := command(ctx, "get", "pods", "--field-selector", "metadata.name="+name, "--watch", "--output-watch-events", "-o", "json")
	if err != nil {
		return 0, err
	}
	out, err := watch.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := watch.Start(); err != nil {
		return 0, err
	}
	defer func() {
		cancel()
		_ = watch.Wait() // ended by us
	}()
	if _, err := kubectl(ctx, "run", name, "--image", image, "--restart", "Never", "--image-pull-policy", "IfNotPresent", "--", "pause"); err != nil {
		return 0, err
	}
	defer func() {
		_, _ = kubectl(context.WithoutCancel(ctx), "delete", "pod", name, "--grace-period=1", "--wait=false")
	}()
	took, err := untilReady(out)
	if err != nil {
		return 0, fmt.Errorf("watch pod %s: %w", name, err)
	}
	return took, nil
}

// untilReady reads watch events: the first is the creation, or close to it.
func untilReady(events io.Reader) (time.Duration, error) {
	d := json.NewDecoder(events)
	var start time.Time
	for {
		var e struct {
			Object struct {
				Status struct {
					Conditions []struct{ Type, Status string }
				}
			}
		}
		if err := d.Decode(&e); err != nil {
			return 0, err
		}
		if start.IsZero() {
			start = time.Now()
		}
		for _, c := range e.Object.Status.Conditions {
			if c.Type == "Ready" && c.Status == "True" {
				return time.Since(start), nil
			}
		}
	}
}
