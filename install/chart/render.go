package chart

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"text/template"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/pkg/config"
)

// Values are what a user sets, as in the chart's values.yaml.
type Values = map[string]any

// Presets are the names of what is written down for kinds of clusters.
func Presets() []string {
	entries, err := own.ReadDir("presets")
	if err != nil {
		panic(err) // they are part of the program
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".yaml"))
	}
	return names
}

func preset(name string) (string, error) {
	if !slices.Contains(Presets(), name) {
		return "", fmt.Errorf("find preset %q: want one of %s", name, strings.Join(Presets(), ", "))
	}
	b, err := own.ReadFile("presets/" + name + ".yaml")
	return string(b), err
}

// Preset are the values for a kind of cluster: kubeadm, k3s or kind.
func Preset(name string) (Values, error) {
	text, err := preset(name)
	if err != nil {
		return nil, err
	}
	return Read(text)
}

// Read reads values as YAML.
func Read(text string) (Values, error) {
	v := Values{}
	if err := yaml.Unmarshal([]byte(text), &v); err != nil {
		return nil, fmt.Errorf("read values: %w", err)
	}
	return v, nil
}

// Setting reads KEY.KEY=VALUE, the value as YAML: config.overlay.mtu=1400.
func Setting(text string) (Values, error) {
	keys, value, found := strings.Cut(text, "=")
	if !found || keys == "" {
		return nil, fmt.Errorf("read setting %q: want KEY.KEY=VALUE, such as config.overlay.mtu=1400", text)
	}
	var v any
	if err := yaml.Unmarshal([]byte(value), &v); err != nil {
		return nil, fmt.Errorf("read setting %q: %q is no YAML: %w", text, value, err)
	}
	parts := strings.Split(keys, ".")
	for _, key := range slices.Backward(parts) {
		v = Values{key: v}
	}
	return v.(Values), nil
}

// Manifest is what Helm would apply: all objects, with the values given over the
// chart's own, later ones over earlier ones. Of the configuration only the meaning
// is the manifests', its comments are not.
func (c Chart) Manifest(given ...Values) ([]byte, error) {
	files, err := c.files()
	if err != nil {
		return nil, err
	}
	values, err := Read(files["values.yaml"])
	if err != nil {
		return nil, err
	}
	for _, g := range given {
		if err := merge("", values, g); err != nil {
			return nil, err
		}
	}
	text, err := yaml.Marshal(values["config"])
	if err != nil {
		return nil, err
	}
	if _, err := config.Parse(text); err != nil {
		return nil, fmt.Errorf("check value config: %w", err)
	}
	var out bytes.Buffer
	for _, name := range order {
		t, err := template.New(name).Funcs(functions).Option("missingkey=error").Parse(files["templates/"+name])
		if err != nil {
			return nil, fmt.Errorf("read template %s: %w", name, err)
		}
		var b bytes.Buffer
		if err := t.Execute(&b, map[string]any{"Values": values}); err != nil {
			return nil, fmt.Errorf("fill template %s: %w", name, err)
		}
		if doc := strings.TrimPrefix(b.String(), "\n"); strings.TrimSpace(doc) != "" {
			out.WriteString("---\n" + doc)
		}
	}
	return out.Bytes(), nil
}

// functions are those of Helm's that the templates use, with its meaning.
var functions = template.FuncMap{
	"toYaml": func(v any) (string, error) {
		b, err := yaml.Marshal(v)
		return strings.TrimSuffix(string(b), "\n"), err
	},
	"toJson": func(v any) (string, error) {
		b, err := json.Marshal(v)
		return string(b), err
	},
	"quote": func(v any) string { return fmt.Sprintf("%q", fmt.Sprint(v)) },
	"indent": func(n int, text string) string {
		pad := strings.Repeat(" ", n)
		return pad + strings.ReplaceAll(text, "\n", "\n"+pad)
	},
	"sha256sum": func(text string) string {
		sum := sha256.Sum256([]byte(text))
		return hex.EncodeToString(sum[:])
	},
}

// merge puts given values over others, which say what there may be: a key that
// has no default is a mistake, and so is a value of another kind. Where the
// default is an empty object anything goes in.
func merge(at string, into, given Values) error {
	anything := len(into) == 0
	for key, v := range given {
		name := path.Join(at, key)
		was, known := into[key]
		if !known && !anything {
			return fmt.Errorf("set value %s: the chart has none of this name; its values are in values.yaml", dotted(name))
		}
		if v == nil {
			return fmt.Errorf("set value %s: nothing is given; leave it out for its default, %v", dotted(name), was)
		}
		inner, isObject := v.(Values)
		if below, object := was.(Values); object && isObject {
			if err := merge(name, below, inner); err != nil {
				return err
			}
			continue
		}
		if known && kind(was) != kind(v) {
			return fmt.Errorf("set value %s to %v: want %s, such as %v", dotted(name), v, kind(was), was)
		}
		into[key] = v
	}
	return nil
}

func dotted(name string) string { return strings.ReplaceAll(name, "/", ".") }

func kind(v any) string {
	switch v.(type) {
	case Values:
		return "an object"
	case []any:
		return "a list"
	case bool:
		return "true or false"
	case float64, int64, int:
		return "a number"
	default:
		return "a text"
	}
}
