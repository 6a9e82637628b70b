package operate

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log/slog"
	"reflect"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/config"
)

// keys are those of the configuration file.
func keys(t *testing.T) string {
	comments := fields(t, root+"/pkg/config/config.go")
	var lines [][]string
	for _, k := range config.Keys() {
		meaning := ""
		for i := len(k.Fields) - 1; i >= 0 && meaning == ""; i-- {
			in := "Config"
			if i > 0 {
				in = k.Fields[i-1].Type.Name()
			}
			meaning = comments[in+"."+k.Fields[i].Name]
		}
		if meaning == "" {
			t.Errorf("%s: its field has no comment", k)
		}
		effect := "restart"
		if k.Live() {
			effect = "live"
		}
		lines = append(lines, []string{"`" + k.Path + "`", value(t, k), "`" + config.Text(k.Default) + "`", effect, meaning})
	}
	return rows([]string{"key", "value", "default", "takes effect", "meaning"}, lines)
}

// value is what may be written.
func value(t *testing.T, k config.Key) string {
	if words := k.Words(); words != nil {
		return quoted(words)
	}
	switch least, most := k.Range(); {
	case most != "":
		return least + " to " + most
	case least != "" && k.Default.Kind() == reflect.Int:
		return least + " or more"
	}
	switch k.Default.Interface().(type) {
	case slog.Level:
		return "level"
	case config.Duration:
		return "duration"
	}
	name, known := map[string]string{
		"bool": "`true`, `false`", "string": "text", "[]string": "list of texts", "[]netip.Prefix": "list of CIDRs",
		"[]json.RawMessage": "list of objects", "map[string]bool": "names with `true` or `false`",
	}[k.Default.Type().String()]
	if !known {
		t.Errorf("%s: what a %s is to users is not known", k, k.Default.Type())
	}
	return name
}

// fields are the comments of a file's structs, by STRUCT.FIELD.
func fields(t *testing.T, path string) map[string]string {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	list := map[string]string{}
	ast.Inspect(file, func(n ast.Node) bool {
		typ, ok := n.(*ast.TypeSpec)
		if !ok {
			return true
		}
		if s, ok := typ.Type.(*ast.StructType); ok {
			for _, f := range s.Fields.List {
				for _, name := range f.Names {
					list[fmt.Sprintf("%s.%s", typ.Name, name)] = strings.Join(strings.Fields(f.Doc.Text()), " ")
				}
			}
		}
		return true
	})
	return list
}
