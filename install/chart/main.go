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
	source := map[string]string{}
	for _, name := range []string{
		manifests + "/poplin.yaml", manifests + "/poplin-ingress.yaml", manifests + "/options/metrics.yaml",
		own + "/values.head.yaml", own + "/Chart.yaml", own + "/NOTES.txt",
	} {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		source[filepath.Base(name)] = string(b)
	}
	config, err := configuration(source["poplin.yaml"])
	if err != nil {
		return nil, err
	}
	values := fill(source["values.head.yaml"], map[string]string{"REGISTRY": c.registry, "TAG": c.tag}) + indent(config, "  ")
	files := map[string]string{
		"Chart.yaml":          fill(source["Chart.yaml"], map[string]string{"VERSION": c.version, "TAG": c.tag}),
		"values.yaml":         values,
		"templates/NOTES.txt": source["NOTES.txt"],
	}
	if files["values.schema.json"], err = schema(values); err != nil {
		return nil, err
	}
	for _, m := range []struct {
		name, when string // always, or where a value is true
		places     []place
	}{
		{"poplin.yaml", "", daemonPlaces(config)},
		{"poplin-ingress.yaml", ".Values.ingress.enabled", ingressPlaces},
		{"metrics.yaml", ".Values.options.metrics", nil},
	} {
		text, err := template(source[m.name], m.places)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m.name, err)
		}
		if m.when != "" {
			text = "{{- if " + m.when + " }}\n" + text + "{{- end }}\n"
		}
		files["templates/"+m.name] = text
	}
	presets, err := filepath.Glob(own + "/presets/*.yaml")
	if err != nil {
		return nil, err
	}
	for _, p := range presets {
		b, err := os.ReadFile(p)
		if err != nil {
			return nil, err
		}
		files["presets/"+filepath.Base(p)] = string(b)
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
