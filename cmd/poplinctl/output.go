package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"

	"poplin.dev/poplin/pkg/version"
)

func usage(w io.Writer) {
	fmt.Fprintln(w, "usage:")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-36s%s\n", "poplinctl "+c.name+" "+c.usage, strings.ReplaceAll(c.help, "\n", "\n"+strings.Repeat(" ", 38)))
	}
}

func say(context.Context, []string) error {
	_, err := fmt.Println("poplinctl", version.String())
	return err
}

func outputFlag(f *flag.FlagSet) *string {
	return f.String("o", "table", "output `format`: table or json")
}

// parse reads a command's flags, and refuses what else there is.
func parse(f *flag.FlagSet, args []string, output *string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if *output != "table" && *output != "json" {
		return fmt.Errorf("-o %q: write table or json", *output)
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return nil
}

func write(w io.Writer, format string, value any, text func(io.Writer) error) error {
	if format == "table" {
		return text(w)
	}
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(value)
}
