package explain

import (
	"fmt"
	"slices"
	"strings"

	yamlv3 "go.yaml.in/yaml/v3"

	"poplin.dev/poplin/pkg/kube/manifest"
)

// expectation is one entry of a document's list.
type expectation struct {
	at             *yamlv3.Node
	from, to, want string
}

// expectations reads a document by hand, because each mistake is to be named
// with its line.
func expectations(d manifest.Document) (list []expectation, err error) {
	top, err := fields(d, d.Node, "apiVersion", "kind", "metadata", "expect")
	if err != nil {
		return nil, err
	}
	expect := top["expect"]
	if expect == nil || expect.Kind != yamlv3.SequenceNode || len(expect.Content) == 0 {
		return nil, d.Errorf(d.Node, "expect: write a list of entries with from, to and verdict")
	}
	for _, n := range expect.Content {
		e, err := read(d, n)
		if err != nil {
			return nil, err
		}
		list = append(list, e)
	}
	return list, nil
}

func read(d manifest.Document, n *yamlv3.Node) (expectation, error) {
	m, err := fields(d, n, "from", "to", "verdict")
	if err != nil {
		return expectation{}, err
	}
	e := expectation{at: n}
	for _, f := range []struct {
		name string
		to   *string
	}{{"from", &e.from}, {"to", &e.to}, {"verdict", &e.want}} {
		v := m[f.name]
		if v == nil || v.Kind != yamlv3.ScalarNode || v.Value == "" {
			return e, d.Errorf(n, "%s is missing: an entry has from, to and verdict", f.name)
		}
		*f.to = v.Value
	}
	if e.want != Allow && e.want != Deny {
		return e, d.Errorf(m["verdict"], "verdict: %q is not understood: write %s or %s", e.want, Allow, Deny)
	}
	return e, nil
}

// fields are the values of an object that has no others than these.
func fields(d manifest.Document, n *yamlv3.Node, known ...string) (map[string]*yamlv3.Node, error) {
	if n.Kind != yamlv3.MappingNode {
		return nil, d.Errorf(n, "this is no object: it has the keys %s", strings.Join(known, ", "))
	}
	m := map[string]*yamlv3.Node{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if !slices.Contains(known, key.Value) {
			return nil, d.Errorf(key, "unknown key %q; known here: %s", key.Value, strings.Join(known, ", "))
		}
		if m[key.Value] != nil {
			return nil, d.Errorf(key, "the key %q stands twice", key.Value)
		}
		m[key.Value] = n.Content[i+1]
	}
	return m, nil
}

// String is the result for people.
func (r Result) String() string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "warning: %s\n", f)
	}
	for _, c := range r.Cases {
		verdict := map[bool]string{false: "FAIL", true: "pass"}[c.Pass]
		fmt.Fprintf(&b, "%s %s:%d: want %s: %s", verdict, c.File, c.Line, c.Want, c.Answer)
	}
	fmt.Fprintf(&b, "%d of %d cases pass\n", len(r.Cases)-r.Failed, len(r.Cases))
	return b.String()
}
