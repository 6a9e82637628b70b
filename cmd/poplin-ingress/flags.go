package main

import (
	"errors"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program/web"
)

// list reads items separated by commas.
func list(item func(string) error) func(string) error {
	return func(s string) error {
		for part := range strings.SplitSeq(s, ",") {
			if err := item(strings.TrimSpace(part)); err != nil {
				return err
			}
		}
		return nil
	}
}

func object(to *cluster.ObjectName) func(string) error {
	return func(s string) error {
		namespace, name, found := strings.Cut(s, "/")
		if !found || namespace == "" || name == "" {
			return errors.New("write NAMESPACE/NAME")
		}
		*to = cluster.ObjectName{Namespace: namespace, Name: name}
		return nil
	}
}

func backend(to *web.BackendID) func(string) error {
	return func(s string) error {
		name, port, found := strings.Cut(s, ":")
		if !found || port == "" {
			return errors.New("write NAMESPACE/NAME:PORT")
		}
		to.Port = port
		return object(&to.Service)(name)
	}
}
