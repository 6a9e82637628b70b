package arch

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const (
	root   = "../.."
	module = "poplin.dev/poplin"
)

type pkg struct {
	dir   string // relative to the root
	files []file
}

type file struct {
	path    string
	lines   int
	imports []string
	ast     *ast.File
	fset    *token.FileSet
}

func (f file) test() bool             { return strings.HasSuffix(f.path, "_test.go") }
func (f file) line(pos token.Pos) int { return f.fset.Position(pos).Line }

func (p pkg) onlyTests() bool {
	return !slices.ContainsFunc(p.files, func(f file) bool { return !f.test() })
}

// within reports whether dir is top or below it.
func within(dir, top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") }

func ruleFor(dir string) (allowed []string, found bool) {
	for d := dir; d != "."; d = filepath.Dir(d) {
		if allowed, found = direction[d]; found {
			return allowed, true
		}
	}
	return nil, false
}

// packages parses every Go file of the module; nested modules, testdata and
// what git ignores are left out.
func packages(t *testing.T) []pkg {
	t.Helper()
	byDir := map[string]*pkg{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if rel == "." {
				return nil
			}
			if n := d.Name(); strings.HasPrefix(n, ".") || n == "testdata" || rel == "bin" || rel == "dist" {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); err == nil {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f, err := parse(path, rel)
		if err != nil {
			return err
		}
		dir := filepath.Dir(rel)
		if byDir[dir] == nil {
			byDir[dir] = &pkg{dir: dir}
		}
		byDir[dir].files = append(byDir[dir].files, f)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var all []pkg
	for _, p := range byDir {
		all = append(all, *p)
	}
	slices.SortFunc(all, func(a, b pkg) int { return strings.Compare(a.dir, b.dir) })
	return all
}

func parse(path, rel string) (file, error) {
	src, err := os.ReadFile(path)
	if err != nil {
		return file{}, err
	}
	f := file{path: rel, lines: bytes.Count(src, []byte("\n")), fset: token.NewFileSet()}
	f.ast, err = parser.ParseFile(f.fset, path, src, parser.ParseComments)
	if err != nil {
		return file{}, err
	}
	for _, imp := range f.ast.Imports {
		p, _ := strconv.Unquote(imp.Path.Value)
		f.imports = append(f.imports, p)
	}
	return f, nil
}
