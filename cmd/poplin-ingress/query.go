package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"

	"poplin.dev/poplin/daemon/ingress/ask"
	"poplin.dev/poplin/pkg/facts"
)

// query prints what the replica of this container makes of a request. It is what
// poplinctl runs there, so that whoever may do that may ask.
func query(args []string, pod string, out io.Writer) error {
	f := flag.NewFlagSet("poplin-ingress query", flag.ContinueOnError)
	text := f.String("visit", "", "`JSON` of a request: tls, host, path, client")
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	var v facts.Visit
	if err := json.Unmarshal([]byte(*text), &v); err != nil {
		return fmt.Errorf("read -visit: %w", err)
	}
	a, err := ask.Here(pod, v)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(a)
}
