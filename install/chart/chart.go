// Package chart makes the Helm chart from the manifests, so that there is one
// source: what users set becomes a template, all else stays what it is. Inputs are
// the manifests and the files beside this one (values.head.yaml, Chart.yaml,
// NOTES.txt, presets); outputs are a directory that Helm takes, and what Helm would
// make of it, for those without Helm. It refuses manifests in which it does not
// find, exactly once, a place where a value belongs, and values that nothing reads.
package chart

import (
	"embed"
	"encoding/json"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/install"
)

//go:embed values.head.yaml Chart.yaml NOTES.txt presets
var own embed.FS

// Chart is one version of it.
type Chart struct {
	Version  string // v1.2.3; a v in front is no part of a chart's version
	Registry string // of the images
	Tag      string // of the images; empty: the version
}

// Write makes the chart in an empty directory.
func (c Chart) Write(out string) error {
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

// order is that of the templates, and only says of which value each depends.
var (
	order = []string{"poplin.yaml", "poplin-ingress.yaml", "metrics.yaml"}
	only  = map[string]string{"poplin-ingress.yaml": ".Values.ingress.enabled", "metrics.yaml": ".Values.options.metrics"}
)

// files are the chart's, by name.
func (c Chart) files() (map[string]string, error) {
	if c.Tag == "" {
		c.Tag = c.Version
	}
	source := map[string]string{}
	for _, name := range []string{"poplin.yaml", "poplin-ingress.yaml", "options/metrics.yaml"} {
		b, err := install.Manifests.ReadFile("manifests/" + name)
		if err != nil {
			return nil, err
		}
		source[path.Base(name)] = string(b)
	}
	for _, name := range []string{"values.head.yaml", "Chart.yaml", "NOTES.txt"} {
		b, err := own.ReadFile(name)
		if err != nil {
			return nil, err
		}
		source[name] = string(b)
	}
	config, err := configuration(source["poplin.yaml"])
	if err != nil {
		return nil, err
	}
	values := fill(source["values.head.yaml"], map[string]string{"REGISTRY": c.Registry, "TAG": c.Tag}) + indent(config, "  ")
	files := map[string]string{
		"Chart.yaml":          fill(source["Chart.yaml"], map[string]string{"VERSION": strings.TrimPrefix(c.Version, "v"), "TAG": c.Tag}),
		"values.yaml":         values,
		"templates/NOTES.txt": source["NOTES.txt"],
	}
	if files["values.schema.json"], err = schema(values); err != nil {
		return nil, err
	}
	places := map[string][]place{"poplin.yaml": daemonPlaces(config), "poplin-ingress.yaml": ingressPlaces}
	for _, name := range order {
		text, err := fillIn(source[name], places[name])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		if when := only[name]; when != "" {
			text = "{{- if " + when + " }}\n" + text + "{{- end }}\n"
		}
		files["templates/"+name] = text
	}
	for _, p := range Presets() {
		if files["presets/"+p+".yaml"], err = preset(p); err != nil {
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
