package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

func logs(_ context.Context, args arguments) error {
	c, before, _, err := args.open(1, 1, false)
	if err != nil {
		return err
	}
	files, err := logFiles(c.Logs(), before[0])
	if err != nil {
		return err
	}
	for _, file := range files {
		if len(files) > 1 {
			fmt.Printf("==> %s <==\n", file)
		}
		if err := printFile(file); err != nil {
			return err
		}
	}
	return nil
}

func printFile(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return fmt.Errorf("print file: %w", err)
	}
	defer f.Close()
	if _, err := io.Copy(os.Stdout, f); err != nil {
		return fmt.Errorf("print file %s: %w", file, err)
	}
	return nil
}

// logFiles finds the logs of a component ("kube-apiserver"), of a component on
// a node ("kubelet-worker-2"), or of a whole node.
func logFiles(dir, of string) ([]string, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.log"))
	if err != nil {
		return nil, fmt.Errorf("find logs: %w", err)
	}
	var found, known []string
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".log")
		component, node, onNode := cutNode(name)
		if name == of || onNode && (node == of || component == of) {
			found = append(found, file)
		}
		known = append(known, component, node)
	}
	if len(found) == 0 {
		slices.Sort(known)
		return nil, fmt.Errorf("find logs of %q: there are those of %s", of, strings.TrimSpace(strings.Join(slices.Compact(known), " ")))
	}
	return found, nil
}

// cutNode takes the node's name off "kubelet-worker-2".
func cutNode(name string) (component, node string, ok bool) {
	component, number, ok := strings.Cut(name, "-worker-")
	if ok {
		node = "worker-" + number
	}
	return component, node, ok
}
