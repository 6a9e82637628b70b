// Package arch holds the house to its design (docs/design.md): what stands at
// the top level, who may import whom, where side effects live, and how large
// things may grow. It reads the source as text and runs nothing of it.
package arch

import (
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTopLevel(t *testing.T) {
	allowed := []string{
		"cmd", "plugins", "pkg", "daemon", "install", "test", "docs",
		"go.mod", "go.sum", "Makefile", "README.md", "LICENSE", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md",
		"bin", "dist", // made, and ignored by git
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && !slices.Contains(allowed, e.Name()) {
			t.Errorf("%s: nothing but %v and dot files stands at the top level", e.Name(), allowed)
		}
	}
}

func TestPackagesAreDocumentedAndWellNamed(t *testing.T) {
	for _, p := range packages(t) {
		documented := false
		for _, f := range p.files {
			documented = documented || f.ast.Doc.Text() != ""
		}
		if !documented && !p.onlyTests() {
			t.Errorf("%s: no package comment: say inputs, outputs and what the package refuses", p.dir)
		}
		switch name := filepath.Base(p.dir); name {
		case "util", "utils", "common", "helpers", "helper", "manager", "misc", "base":
			t.Errorf("%s: %q names no thing", p.dir, name)
		}
	}
}

// Sizes past which a thing usually wants to be two.
const (
	maxFile    = 400
	maxPackage = 1200
	maxFunc    = 100
	maxMain    = 120
)

func TestSizes(t *testing.T) {
	for _, p := range packages(t) {
		total := 0
		for _, f := range p.files {
			if f.test() {
				continue
			}
			total += f.lines
			limit := maxFile
			if strings.HasPrefix(p.dir, "cmd/") {
				limit = maxMain
			}
			if f.lines > limit {
				t.Errorf("%s: %d lines, at most %d", f.path, f.lines, limit)
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					if n := f.line(fn.End()) - f.line(fn.Pos()) + 1; n > maxFunc {
						t.Errorf("%s: func %s has %d lines, at most %d", f.path, fn.Name.Name, n, maxFunc)
					}
					if fn.Name.Name == "init" && fn.Recv == nil {
						t.Errorf("%s: no init(): wiring stands in plain sight", f.path)
					}
				}
			}
		}
		if total > maxPackage {
			t.Errorf("%s: %d lines, at most %d in a package", p.dir, total, maxPackage)
		}
	}
}

// home says where an import may stand; test files and test/ are free unless
// the rule says otherwise.
type home struct {
	what  string   // import path, or its prefix with a trailing slash
	where []string // folders
	why   string
}

var homes = []home{
	{"k8s.io/client-go/", []string{"pkg/kube"}, "one package talks to the API server"},
	{"k8s.io/api/", []string{"pkg/kube"}, "one package talks to the API server"},
	{"k8s.io/apimachinery/", []string{"pkg/kube"}, "one package talks to the API server"},
	{"github.com/vishvananda/netlink", []string{"pkg/apply", "plugins/poplin/apply"}, "one place has side effects"},
	{"github.com/vishvananda/netns", []string{"pkg/apply", "plugins/poplin/apply"}, "one place has side effects"},
	{"github.com/google/nftables", []string{"pkg/apply"}, "one place has side effects"},
	{"os/exec", []string{"pkg/apply", "install", "plugins/poplin"}, "one place has side effects"},
	{"net/http", []string{"pkg/kube", "pkg/apply", "daemon/status", "daemon/isolation", "daemon/services/health", "daemon/ingress", "pkg/metrics", "pkg/ui"}, "listeners are few and listed"},
}

func TestSideEffectsStayAtHome(t *testing.T) {
	for _, p := range packages(t) {
		if within(p.dir, "test") || within(p.dir, "install/image") {
			continue
		}
		for _, f := range p.files {
			if f.test() {
				continue
			}
			for _, imp := range f.imports {
				for _, h := range homes {
					match := imp == h.what || strings.HasSuffix(h.what, "/") && strings.HasPrefix(imp, h.what)
					if match && !slices.ContainsFunc(h.where, func(w string) bool { return within(p.dir, w) }) {
						t.Errorf("%s imports %s, whose home is %v: %s", f.path, imp, h.where, h.why)
					}
				}
			}
		}
	}
}

// direction: a package under the key imports, of this module, nothing but
// what is under the values. The longest key that fits decides.
var direction = map[string][]string{
	"pkg/version":         {},
	"pkg/cluster":         {},
	"pkg/cluster/policy":  {"pkg/cluster/service"},
	"pkg/cluster/object":  {"pkg/cluster/service"},
	"pkg/config":          {},
	"pkg/loop":            {},
	"pkg/metrics":         {"pkg/version"},
	"pkg/program":         {"pkg/cluster"},
	"pkg/program/nft":     {"pkg/program/elements"},
	"pkg/program/vip":     {"pkg/cluster", "pkg/program/nft", "pkg/program/elements"},
	"pkg/program/permit":  {"pkg/cluster", "pkg/program/nft", "pkg/program/elements"},
	"pkg/facts":           {"pkg/cluster", "pkg/program"},
	"pkg/overlay":         {"pkg/cluster", "pkg/program"},
	"pkg/masquerade":      {"pkg/cluster", "pkg/program"},
	"pkg/services":        {"pkg/cluster", "pkg/program"},
	"pkg/policy":          {"pkg/cluster", "pkg/program"},
	"pkg/policy/verdict":  {"pkg/cluster", "pkg/policy/peers", "pkg/policy/ports"},
	"pkg/policy/reach":    {"pkg/cluster", "pkg/program", "pkg/policy"},
	"pkg/trace":           {"pkg/cluster", "pkg/program", "pkg/facts", "pkg/trace"},
	"pkg/ingress":         {"pkg/cluster", "pkg/program"},
	"pkg/ingress/migrate": {"pkg/cluster", "pkg/ingress"},
	"pkg/ui":              {"pkg/trace/way"},
	"pkg/ui/graph":        {"pkg/cluster", "pkg/policy/peers", "pkg/trace/way"},
	"pkg/kube":            {"pkg/cluster", "pkg/version", "pkg/kube/decode", "pkg/kube/event", "pkg/kube/follow", "pkg/kube/group", "pkg/kube/reach"},
	"pkg/kube/manifest":   {"pkg/cluster", "pkg/kube/policies"},
	"pkg/flows":           {"pkg/cluster", "pkg/facts"},
	"pkg/kube/scratch":    {"pkg/kube/group", "pkg/version"},
	"pkg/kube/fleet":      {"pkg/kube/person"},
	"pkg/kube/dump":       {"pkg/cluster", "pkg/kube/person", "pkg/kube/fleet", "pkg/version"},
	"pkg/apply":           {"pkg/cluster", "pkg/program", "pkg/apply/diff", "pkg/apply/monitor", "pkg/facts"},
	"pkg/apply/route":     {"pkg/cluster", "pkg/program", "pkg/apply/diff", "pkg/apply/ethtool"},
	"pkg/apply/wire":      {"pkg/program/nft"},
	"pkg/apply/podlink":   {"pkg/apply/wire"},
	"pkg/apply/table":     {"pkg/program/nft", "pkg/apply/monitor", "pkg/apply/wire"},
	"pkg/apply/vip":       {"pkg/cluster", "pkg/program", "pkg/apply/table", "pkg/apply/wire", "pkg/apply/vip", "pkg/facts"},
	"pkg/apply/flows":     {"pkg/cluster/service", "pkg/program/vip", "pkg/apply/wire", "pkg/facts"},
	"pkg/apply/nflog":     {"pkg/cluster/service", "pkg/apply/wire"},
	"pkg/apply/inspect":   {"pkg/cluster", "pkg/program", "pkg/facts", "pkg/apply/foreign", "pkg/apply/listening"},
	"pkg/apply/observe":   {"pkg/program/nft", "pkg/facts", "pkg/apply/wire"},
	"pkg/apply/permit":    {"pkg/cluster", "pkg/program", "pkg/apply/table", "pkg/apply/wire"},
	"pkg/apply/proxy":     {"pkg/cluster", "pkg/program", "pkg/apply/proxy"},
	"plugins":             {"plugins", "pkg/version"},
	"daemon":              {"daemon", "pkg", "install"},
	"daemon/overlay":      {"pkg"},
	"daemon/services":     {"pkg"},
	"daemon/policy":       {"pkg"},
	"daemon/status":       {"pkg"},
	// A program of its own: it needs nothing of the node's daemon.
	"daemon/ingress":      {"pkg"},
	"daemon/connectivity": {"pkg"},
	"daemon/render":       {"pkg"},
	"daemon/overview":     {"daemon/status", "pkg"},
	// What it examines is what these keep.
	"daemon/doctor": {"daemon/conflist", "daemon/ipam", "daemon/status", "pkg"},
	// What the plugin tells is told in its words.
	"daemon/timings": {"pkg/loop", "plugins/poplin"},
	// What the daemon's parts and the plugin's files say, read on the node.
	"daemon/query": {"daemon", "pkg", "plugins"},
	"daemon/trace": {"daemon", "pkg"},
	// Orphans are released by the code that gave them their addresses.
	"daemon/ipam": {"pkg", "plugins"},
	// Host ports are put back by the code that put them there.
	"daemon/hostports": {"pkg", "plugins/hostport"},
	// So are the node's ends of pods' links.
	"daemon/podlinks": {"pkg", "plugins/poplin"},
	// The CNI plugin asks here; what it made before is in the kernel.
	"daemon/isolation": {"pkg", "install", "plugins/isolation", "plugins/poplin/apply"},
	// The reverse of the daemon and of the CNI plugin.
	"daemon/cleanup": {"daemon", "pkg", "install", "plugins"},
	// These are files on the node: their writer is the installer's.
	"daemon/before":   {"pkg", "install"},
	"daemon/conflist": {"pkg", "install"},
	"daemon/snapshot": {"pkg", "install"},
	"install":         {"pkg/version"},
	"install/chart":   {"install", "pkg/config"},
	"install/image":   {"install/image", "install/contents", "pkg/version"},
	"install/release": {"install/contents"},
	"cmd/poplin":      {"plugins", "pkg/version"},
	"cmd":             {"daemon", "pkg", "install"},
	"test":            {"pkg", "plugins", "daemon", "install", "test"},
	// What others are held to is written without them: the oracles know the API's
	// objects, and the faults nothing of what finds them.
	"test/oracle":       {"pkg/cluster"},
	"test/fault/corpus": {"test"},
}

func TestImportDirection(t *testing.T) {
	for _, p := range packages(t) {
		allowed, found := ruleFor(p.dir)
		if !found {
			t.Errorf("%s: no rule says what it may import: add one to direction", p.dir)
			continue
		}
		for _, f := range p.files {
			if f.test() {
				continue
			}
			for _, imp := range f.imports {
				to, ours := strings.CutPrefix(imp, module+"/")
				if ours && !within(to, p.dir) && !slices.ContainsFunc(allowed, func(a string) bool { return within(to, a) }) {
					t.Errorf("%s imports %s: %s may import %v", f.path, to, p.dir, allowed)
				}
			}
		}
	}
}

func TestOnlyCommandsExit(t *testing.T) {
	for _, p := range packages(t) {
		for _, f := range p.files {
			if f.test() || f.ast.Name.Name == "main" {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if call, ok := n.(*ast.SelectorExpr); ok {
					if x, ok := call.X.(*ast.Ident); ok && (x.Name == "os" && call.Sel.Name == "Exit" || x.Name == "log" && strings.HasPrefix(call.Sel.Name, "Fatal")) {
						t.Errorf("%s:%d: %s.%s: only a main package ends the process", f.path, f.line(call.Pos()), x.Name, call.Sel.Name)
					}
				}
				return true
			})
		}
	}
}

func TestNothingOfAWorkplace(t *testing.T) {
	// Paths that only exist where a contributor happened to work.
	bad := []string{"/work" + "/main", "/work" + "/shared", "/root" + "/go/pkg", "/home" + "/runner"}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != root && (name == ".git" || name == "bin" || name == "dist") {
				return filepath.SkipDir
			}
			return nil
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, s := range bad {
			if strings.Contains(string(b), s) {
				t.Errorf("%s: contains %q", path, s)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A skip must say what the machine lacks, and be a failure in CI unless that
// is known: test/need does both.
func TestOnlyNeedSkips(t *testing.T) {
	for _, p := range packages(t) {
		if p.dir == "test/need" {
			continue
		}
		for _, f := range p.files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					if s, ok := call.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, s.Sel.Name) {
						if x, ok := s.X.(*ast.Ident); ok && (x.Name == "t" || x.Name == "b" || x.Name == "tb") {
							t.Errorf("%s:%d: %s.%s: use test/need", f.path, f.line(call.Pos()), x.Name, s.Sel.Name)
						}
					}
				}
				return true
			})
		}
	}
}
