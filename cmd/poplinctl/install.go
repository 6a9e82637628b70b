package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"

	"poplin.dev/poplin/install/chart"
	"poplin.dev/poplin/pkg/version"
)

// manifests prints what installs Poplin. It asks no cluster.
func manifests(_ context.Context, args []string) error {
	f := flag.NewFlagSet("poplinctl install", flag.ContinueOnError)
	c := chart.Chart{}
	printed := f.Bool("print", false, "print the manifests; nothing is applied")
	f.StringVar(&c.Registry, "registry", "poplin.dev", "`registry` of the images: REGISTRY/poplin and REGISTRY/poplin-ingress")
	f.StringVar(&c.Tag, "tag", "", "`tag` of the images (default: this program's version)")
	preset := f.String("preset", "", "values for a `kind` of cluster: "+strings.Join(chart.Presets(), ", "))
	var given []chart.Values
	f.Func("values", "`file` of values, as the Helm chart takes them; may be repeated", func(file string) error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		v, err := chart.Read(string(b))
		given = append(given, v)
		return err
	})
	f.Func("set", "one value, `KEY.KEY=VALUE`, the value as YAML; may be repeated", func(text string) error {
		v, err := chart.Setting(text)
		given = append(given, v)
		return err
	})
	if err := parse(f, args, nil); err != nil {
		return err
	}
	if !*printed {
		return errors.New("write poplinctl install -print, and read it; then pipe it into kubectl apply -f -")
	}
	c.Tag = cmp.Or(c.Tag, version.Version)
	c.Version = c.Tag
	if *preset != "" {
		v, err := chart.Preset(*preset)
		if err != nil {
			return err
		}
		given = append([]chart.Values{v}, given...)
	}
	text, err := c.Manifest(given...)
	if err != nil {
		return err
	}
	_, err = fmt.Print(string(text))
	return err
}
