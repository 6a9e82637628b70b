// Command chart makes the Helm chart from the manifests, so that there is one
// source: what users set becomes a template, all else stays what it is. Inputs
// are install/manifests and the files beside this one (values.head.yaml,
// Chart.yaml, NOTES.txt, presets); output is a directory that Helm takes. It
// refuses manifests in which it does not find, exactly once, a place where a
// value belongs.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"
)

func main() {
	out := flag.String("o", "dist/chart", "`directory` to write the chart to, anew")
	version := flag.String("version", "0.0.0-dev", "`version` of the chart and its images; a v in front is no part of a chart's version")
	registry := flag.String("registry", "poplin.dev", "`registry` of the images")
	tag := flag.String("tag", "", "`tag` of the images (default: the version)")
	flag.Parse()
	c := chart{version: strings.TrimPrefix(*version, "v"), registry: *registry, tag: *tag}
	if c.tag == "" {
		c.tag = *version
	}
	if err := c.write(*out); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

type chart struct{ version, registry, tag string }

const (
	manifests = "install/manifests"
	own       = "install/chart"
)

// write makes the chart in an empty directory.
func (c chart) write(out string) error {
	files, err := c.files()
	if err != nil {
		return err
	}
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	for name, text := range files {
		path := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// files are the chart's, by name.
func (c chart) files() (map[string]string, error) {
	read := func(names ...string) (string, error) {
		b, err := os.ReadFile(filepath.Join(names...))
		return string(b), err
	}
	network, err := read(manifests, "poplin.yaml")
	if err != nil {
		return nil, err
	}
	ingress, err := read(manifests, "poplin-ingress.yaml")
	if err != nil {
		return nil, err
	}
	metrics, err := read(manifests, "options", "metrics.yaml")
	if err != nil {
		return nil, err
	}
	head, err := read(own, "values.head.yaml")
	if err != nil {
		return nil, err
	}
	meta, err := read(own, "Chart.yaml")
	if err != nil {
		return nil, err
	}
	notes, err := read(own, "NOTES.txt")
	if err != nil {
		return nil, err
	}
	config, err := configuration(network)
	if err != nil {
		return nil, err
	}
	values := fill(head, map[string]string{"REGISTRY": c.registry, "TAG": c.tag}) + indent(config, "  ")
	files := map[string]string{
		"Chart.yaml":          fill(meta, map[string]string{"VERSION": c.version, "TAG": c.tag}),
		"values.yaml":         values,
		"templates/NOTES.txt": notes,
	}
	if files["values.schema.json"], err = schema(values); err != nil {
		return nil, err
	}
	if files["templates/poplin.yaml"], err = template(network, daemonPlaces(config)); err != nil {
		return nil, fmt.Errorf("poplin.yaml: %w", err)
	}
	if ingress, err = template(ingress, ingressPlaces); err != nil {
		return nil, fmt.Errorf("poplin-ingress.yaml: %w", err)
	}
	if metrics, err = template(metrics, nil); err != nil {
		return nil, fmt.Errorf("metrics.yaml: %w", err)
	}
	files["templates/poplin-ingress.yaml"] = when(".Values.ingress.enabled", ingress)
	files["templates/metrics.yaml"] = when(".Values.options.metrics", metrics)
	presets, err := filepath.Glob(own + "/presets/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, p := range presets {
		if files["presets/"+filepath.Base(p)], err = read(p); err != nil {
			return nil, err
		}
	}
	return files, nil
}

// configuration is the daemon's, with its comments, as the manifest has it.
func configuration(manifest string) (string, error) {
	_, rest, found := strings.Cut(manifest, "  config.yaml: |\n")
	if !found {
		return "", fmt.Errorf("poplin.yaml has no config.yaml")
	}
	text, _, _ := strings.Cut(rest, "---\n")
	return indentLess(text, "    "), nil
}

func when(condition, text string) string {
	return "{{- if " + condition + " }}\n" + text + "{{- end }}\n"
}

func fill(text string, values map[string]string) string {
	for name, v := range values {
		text = strings.ReplaceAll(text, "@"+name+"@", v)
	}
	return text
}

func indent(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		if line != "\n" {
			b.WriteString(by)
		}
		b.WriteString(line)
	}
	return b.String()
}

func indentLess(text, by string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimPrefix(line, by))
	}
	return b.String()
}

// schema says of each value what it must be: what its default is, and a key
// that has none is a mistake. Where the default is empty anything goes in.
func schema(values string) (string, error) {
	var v any
	if err := yaml.Unmarshal([]byte(values), &v); err != nil {
		return "", fmt.Errorf("values: %w", err)
	}
	s := shape(v)
	s["$schema"] = "http://json-schema.org/draft-07/schema#"
	b, err := json.MarshalIndent(s, "", "  ")
	return string(b) + "\n", err
}

func shape(v any) map[string]any {
	switch v := v.(type) {
	case map[string]any:
		properties := map[string]any{}
		for key, value := range v {
			properties[key] = shape(value)
		}
		return map[string]any{"type": "object", "properties": properties, "additionalProperties": len(v) == 0}
	case []any:
		return map[string]any{"type": "array"}
	case bool:
		return map[string]any{"type": "boolean"}
	case float64:
		return map[string]any{"type": "integer"}
	default:
		return map[string]any{"type": "string"}
	}
}
