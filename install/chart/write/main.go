// Command write makes the Helm chart into a directory, anew.
package main

import (
	"flag"
	"fmt"
	"os"

	"poplin.dev/poplin/install/chart"
)

func main() {
	c := chart.Chart{}
	out := flag.String("o", "dist/chart", "`directory` to write the chart to, anew")
	flag.StringVar(&c.Version, "version", "0.0.0-dev", "`version` of the chart and its images; a v in front is no part of a chart's version")
	flag.StringVar(&c.Registry, "registry", "poplin.dev", "`registry` of the images")
	flag.StringVar(&c.Tag, "tag", "", "`tag` of the images (default: the version)")
	flag.Parse()
	if err := c.Write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}
