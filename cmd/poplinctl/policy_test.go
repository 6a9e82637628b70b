package main

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A case that fails is a result, with an exit code of its own; a file that
// cannot be read is an error.
func TestPolicyTest(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pods := file("pods.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b}\n")
	expect := func(name, verdict string) string {
		return file(name, "apiVersion: policy.poplin.dev/v1alpha1\nkind: PolicyTest\nexpect: [{from: default/a, to: \"default/b:80\", verdict: "+verdict+"}]\n")
	}
	for _, c := range []struct {
		args           []string
		problem, fails bool
	}{
		{[]string{"test", pods, expect("good.yaml", "allow")}, false, false},
		{[]string{"test", "-o", "json", pods, expect("good.yaml", "allow")}, false, false},
		{[]string{"test", pods, expect("bad.yaml", "deny")}, true, true},
		{[]string{"test", pods}, false, true},
		{[]string{"test", filepath.Join(dir, "nowhere.yaml")}, false, true},
		{[]string{"test"}, false, true},
		{[]string{"explain", "-from", "default/a"}, false, true},
		{nil, false, true},
	} {
		err := policies(t.Context(), c.args)
		if got := errors.As(err, &problems{}); got != c.problem || (err != nil) != c.fails {
			t.Errorf("%v: %v", c.args, err)
		}
	}
}
