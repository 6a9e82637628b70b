package explain

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/kube/manifest"
	"poplin.dev/poplin/pkg/policy/reach"
)

// What a document with expectations calls itself.
const (
	APIVersion = "policy.poplin.dev/v1alpha1"
	Kind       = "PolicyTest"
)

// File is one to be read.
type File struct {
	Name string
	Text []byte
}

// Case is one expectation.
type Case struct {
	// File and Line are where it stands.
	File string `json:"file"`
	Line int    `json:"line"`
	// Want is Allow or Deny.
	Want string `json:"want"`
	Pass bool   `json:"pass"`
	reach.Answer
}

// Expectations.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Result is what came of all cases.
type Result struct {
	Cases []Case `json:"cases"`
	// Failed counts those that do not pass.
	Failed int `json:"failed"`
	// Findings are what users should mend in the policies.
	Findings []string `json:"findings,omitempty"`
}

// TestFiles is Test for files by their names.
func TestFiles(names []string) (Result, error) {
	var files []File
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return Result{}, err
		}
		files = append(files, File{Name: name, Text: text})
	}
	return Test(files)
}

// Test reads manifests and expectations, in any order, and judges each.
func Test(files []File) (Result, error) {
	var objects policy.Objects
	var tests []manifest.Document
	for _, f := range files {
		others, err := manifest.Read(f.Name, f.Text, &objects)
		if err != nil {
			return Result{}, err
		}
		for _, d := range others {
			if d.APIVersion == APIVersion && d.Kind == Kind {
				tests = append(tests, d)
			}
		}
	}
	complete(&objects)
	c := reach.New(objects)
	r := Result{Cases: []Case{}}
	for _, f := range c.Findings {
		r.Findings = append(r.Findings, fmt.Sprintf("%s: %s", f.Policy, f.Message))
	}
	for _, d := range tests {
		if err := r.judge(c, d); err != nil {
			return Result{}, err
		}
	}
	if len(r.Cases) == 0 {
		return Result{}, fmt.Errorf("nothing is expected: write a document of kind %s (%s)", Kind, APIVersion)
	}
	return r, nil
}

// complete adds what a cluster would: namespaces that nobody wrote down, and
// addresses that are in no block but that of everything (RFC 1112, RFC 6666).
func complete(o *policy.Objects) {
	missing := map[string]bool{}
	for i := range o.Pods {
		p := &o.Pods[i]
		missing[p.Namespace] = true
		if len(p.Addresses) == 0 {
			n := i + 1
			p.Addresses = []netip.Addr{
				netip.AddrFrom4([4]byte{240, byte(n >> 16), byte(n >> 8), byte(n)}),
				netip.AddrFrom16([16]byte{0: 1, 13: byte(n >> 16), 14: byte(n >> 8), 15: byte(n)}),
			}
		}
	}
	for _, n := range o.Namespaces {
		delete(missing, n.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(missing)) {
		o.Namespaces = append(o.Namespaces, policy.Namespace{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}})
	}
}

// judge asks about every expectation of a document.
func (r *Result) judge(c *reach.Cluster, d manifest.Document) error {
	list, err := expectations(d)
	if err != nil {
		return err
	}
	for _, e := range list {
		a, err := c.Explain(e.from, e.to)
		if err != nil {
			return d.Errorf(e.at, "%w", err)
		}
		k := Case{File: d.File, Line: e.at.Line, Want: e.want, Answer: a, Pass: a.Allowed == (e.want == Allow)}
		if e.want == Deny {
			k.Pass = !slices.ContainsFunc(a.Flows, func(f reach.Flow) bool { return f.Allowed })
		}
		r.Cases = append(r.Cases, k)
		if !k.Pass {
			r.Failed++
		}
	}
	return nil
}
