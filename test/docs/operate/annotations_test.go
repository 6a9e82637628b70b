package operate

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/ingress/annotation"
)

// annotations are those of Ingresses under our prefix and ingress-nginx'.
func annotations(t *testing.T) string {
	var lines [][]string
	for _, r := range annotation.Rules() {
		wrong, nginx := "ignored", []string{r.Name}
		if r.Closed {
			wrong = "closed"
		}
		if r.NoEffect {
			r.Means = "No effect. " + r.Means
		}
		if r.Own {
			nginx = nil
		} else if r.Alias != "" {
			nginx = append(nginx, r.Alias)
		}
		if r.Means == "" {
			t.Errorf("annotation %s does not say what it means", r.Name)
		}
		lines = append(lines, []string{"`" + r.Name + "`", quoted(nginx), wrong, r.Means})
	}
	return rows([]string{"`" + annotation.Prefix + "`", "`" + annotation.Nginx + "`", "wrong value", "meaning"}, lines)
}

var (
	// qualified is how names of labels and annotations look.
	qualified = regexp.MustCompile(`^[a-z.]+\.(io|dev)/[a-z.-]+$`)
	// kind is in the comment of each constant that is such a name, or a taint's.
	kind = regexp.MustCompile(`^\w+ is an? (label|annotation|taint) of (?:an?|the) (.*)$`)
)

// marks are labels, annotations and taints that the programs read by name; one
// of the constants that are such a name says what it means.
func marks(t *testing.T) string {
	meanings := map[string][]string{}
	for _, v := range constants(t) {
		name, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
		if err != nil {
			t.Fatal(err)
		}
		said := kind.FindStringSubmatch(strings.Join(strings.Fields(v.Doc.Text()), " "))
		switch {
		case said != nil:
			meanings[name] = []string{"`" + name + "`", said[1], said[2]}
		case qualified.MatchString(name) && name != ingress.Controller && meanings[name] == nil:
			meanings[name] = nil
		}
	}
	var lines [][]string
	for _, name := range slices.Sorted(maps.Keys(meanings)) {
		if meanings[name] == nil {
			t.Errorf("no comment of a constant says of which object %s is a label, annotation or taint", name)
		}
		lines = append(lines, meanings[name])
	}
	return rows([]string{"name", "what", "of"}, lines)
}

// constants are those of a single text in pkg and daemon.
func constants(t *testing.T) (list []*ast.ValueSpec) {
	for _, dir := range []string{"pkg", "daemon"} {
		err := filepath.WalkDir(filepath.Join(root, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
			if err != nil {
				return err
			}
			for _, d := range file.Decls {
				if g, ok := d.(*ast.GenDecl); ok && g.Tok == token.CONST {
					list = append(list, texts(g)...)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

func texts(g *ast.GenDecl) (list []*ast.ValueSpec) {
	for _, s := range g.Specs {
		v := s.(*ast.ValueSpec)
		if len(v.Values) != 1 {
			continue
		}
		if lit, ok := v.Values[0].(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if v.Doc == nil && !g.Lparen.IsValid() {
				v.Doc = g.Doc
			}
			list = append(list, v)
		}
	}
	return list
}
