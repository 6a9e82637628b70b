package config

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"
)

// Parse reads the file's text over the defaults. A key that is absent or null
// keeps its default. All mistakes are reported at once.
func Parse(text []byte) (Config, error) {
	c := Default()
	c.APIVersion, c.Kind = "", ""
	// The library's strict mode refuses a key that stands twice.
	b, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return c, fmt.Errorf("read YAML: %w", err)
	}
	var tree any
	if err := json.Unmarshal(b, &tree); err != nil {
		return c, fmt.Errorf("read YAML: %w", err)
	}
	if tree == nil {
		tree = map[string]any{}
	}
	d := decoder{}
	d.value("", tree, reflect.ValueOf(&c).Elem())
	if err := errors.Join(d.errs...); err != nil {
		return c, err
	}
	return c, c.validate()
}

// decoder fills Config from YAML's generic tree. encoding/json could do it,
// but its errors name no path for text values and know no nearest key.
type decoder struct{ errs []error }

func (d *decoder) fail(path, format string, args ...any) {
	if path == "" {
		path = "the file"
	}
	d.errs = append(d.errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
}

// value stores v, which stands at path in the file, in out.
func (d *decoder) value(path string, v any, out reflect.Value) {
	if v == nil {
		return
	}
	if raw, ok := out.Addr().Interface().(*json.RawMessage); ok {
		*raw, _ = json.Marshal(v)
		return
	}
	if text, ok := out.Addr().Interface().(encoding.TextUnmarshaler); ok {
		s, ok := v.(string)
		if !ok {
			d.fail(path, "%v is no string: put it in quotes", v)
		} else if err := text.UnmarshalText([]byte(s)); err != nil {
			d.fail(path, "%q is not understood: %v", s, err)
		}
		return
	}
	switch out.Kind() {
	case reflect.Struct:
		d.object(path, v, out)
	case reflect.Slice:
		d.list(path, v, out)
	case reflect.Map:
		d.table(path, v, out)
	default:
		d.scalar(path, v, out)
	}
}

func (d *decoder) object(path string, v any, out reflect.Value) {
	m, ok := v.(map[string]any)
	if !ok {
		d.fail(path, "%v is no object: expected keys %s", v, strings.Join(keys(out.Type()), ", "))
		return
	}
	known := keys(out.Type())
	for _, key := range sorted(m) {
		i := slices.Index(known, key)
		if i < 0 {
			d.fail(join(path, key), "unknown key%s", suggest(key, known))
			continue
		}
		d.value(join(path, key), m[key], out.Field(i))
	}
}

func (d *decoder) list(path string, v any, out reflect.Value) {
	l, ok := v.([]any)
	if !ok {
		d.fail(path, "%v is no list: write each item on a line that starts with a dash", v)
		return
	}
	s := reflect.MakeSlice(out.Type(), len(l), len(l))
	for i, item := range l {
		at := fmt.Sprintf("%s[%d]", path, i)
		if item == nil {
			d.fail(at, "is empty: give it a value or remove the line")
			continue
		}
		d.value(at, item, s.Index(i))
	}
	out.Set(s)
}

func (d *decoder) table(path string, v any, out reflect.Value) {
	m, ok := v.(map[string]any)
	if !ok {
		d.fail(path, "%v is no object", v)
		return
	}
	out.Set(reflect.MakeMap(out.Type()))
	for _, key := range sorted(m) {
		item := reflect.New(out.Type().Elem()).Elem()
		d.value(join(path, key), m[key], item)
		out.SetMapIndex(reflect.ValueOf(key), item)
	}
}

func (d *decoder) scalar(path string, v any, out reflect.Value) {
	switch out.Kind() {
	case reflect.String:
		if s, ok := v.(string); ok {
			out.SetString(s)
			return
		}
		d.fail(path, "%v is no string: put it in quotes", v)
	case reflect.Bool:
		if b, ok := v.(bool); ok {
			out.SetBool(b)
			return
		}
		d.fail(path, "%v is neither true nor false", v)
	case reflect.Int:
		if f, ok := v.(float64); ok && f == math.Trunc(f) && math.Abs(f) < 1<<31 {
			out.SetInt(int64(f))
			return
		}
		d.fail(path, "%v is no whole number", v)
	}
}

// keys are the file's names of a struct's fields, in the fields' order.
func keys(t reflect.Type) []string {
	list := make([]string, t.NumField())
	for i := range list {
		list[i] = t.Field(i).Tag.Get("json")
	}
	return list
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func sorted(m map[string]any) []string {
	list := make([]string, 0, len(m))
	for k := range m {
		list = append(list, k)
	}
	slices.Sort(list)
	return list
}

// suggest names the known key that needs the fewest edits, or all of them
// where none is near.
func suggest(key string, known []string) string {
	best, least := "", len(key)/2+2
	for _, k := range known {
		if n := distance(strings.ToLower(key), strings.ToLower(k)); n < least {
			best, least = k, n
		}
	}
	if best == "" {
		return "; known here: " + strings.Join(known, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// distance is Levenshtein's: insertions, deletions and replacements.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(diagonal+cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
