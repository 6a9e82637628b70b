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
		fmt.Fprintf(w, "  %-40s%s\n", program()+" "+c.name+" "+c.usage, strings.ReplaceAll(c.help, "\n", "\n"+strings.Repeat(" ", 42)))
	}
	fmt.Fprintf(w, "%s COMMAND -h has a command's flags, and examples.\n", program())
}

func say(_ context.Context, args []string) error {
	if err := parse(flag.NewFlagSet("poplinctl version", flag.ContinueOnError), args, nil); err != nil {
		return err
	}
	_, err := fmt.Println("poplinctl", version.String())
	return err
}

func outputFlag(f *flag.FlagSet) *string {
	return f.String("o", "table", "output `format`: table or json")
}

// parse reads a command's flags, and refuses what else there is. output is nil
// where there is no choice.
func parse(f *flag.FlagSet, args []string, output *string) error {
	if err := parseFlags(f, args, output); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("unknown argument %q", f.Arg(0))
	}
	return nil
}

// parseFlags leaves what else there is to the command.
func parseFlags(f *flag.FlagSet, args []string, output *string) error {
	if len(args) == 1 && args[0] == listing {
		return listed{f}
	}
	if err := f.Parse(args); err != nil {
		return err
	}
	if output != nil && *output != "table" && *output != "json" {
		return fmt.Errorf("-o %q: write table or json", *output)
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
