package reason

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Each constant has its entry, under its own name, and each entry says all.
func TestEntries(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), "reason.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var constants, names []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && v.Names[0].Name != "_" {
			constants = append(constants, v.Names[0].Name)
		}
		return true
	})
	for _, r := range slices.Concat(Poplind(), Ingress()) {
		e := r.Entry()
		names = append(names, e.Name)
		if len(e.On) == 0 || !strings.HasSuffix(e.Means, ".") || !strings.HasSuffix(e.Cure, ".") {
			t.Errorf("%s (%d) has no objects, meaning or cure: %+v", e.Name, r, e)
		}
	}
	if !slices.Equal(constants, names) {
		t.Errorf("there are constants\n%v\nand entries\n%v", constants, names)
	}
}
