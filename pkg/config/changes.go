package config

import (
	"encoding/json"
	"reflect"
)

// Changes are the paths of the keys in which b differs from a, in the file's
// order.
func Changes(a, b Config) []string {
	var paths []string
	walk("", reflect.ValueOf(a), reflect.ValueOf(b), func(path string, a, b reflect.Value) {
		if text(a) != text(b) {
			paths = append(paths, path)
		}
	})
	return paths
}

// walk visits the leaves of two configurations side by side.
func walk(path string, a, b reflect.Value, leaf func(path string, a, b reflect.Value)) {
	if a.Kind() != reflect.Struct {
		leaf(path, a, b)
		return
	}
	for i, key := range keys(a.Type()) {
		walk(join(path, key), a.Field(i), b.Field(i), leaf)
	}
}

// text is a value as JSON: nil and empty are the same to the reader of a file.
func text(v reflect.Value) string {
	if k := v.Kind(); (k == reflect.Slice || k == reflect.Map) && v.Len() == 0 {
		return "[]"
	}
	b, err := json.Marshal(v.Interface())
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// Paths are all keys of the file, in its order.
func Paths() []string {
	var paths []string
	c := reflect.ValueOf(Default())
	walk("", c, c, func(path string, _, _ reflect.Value) { paths = append(paths, path) })
	return paths
}
