package config

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestDocs keeps docs/configuration.md in step with the struct: a row for
// each key, in the same order, with its default.
func TestDocs(t *testing.T) {
	b, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(b)) {
		cells := strings.Split(line, " | ")
		if len(cells) < 4 || !strings.HasPrefix(line, "| `") {
			continue
		}
		got = append(got, strings.TrimPrefix(cells[0], "| ")+" "+cells[1])
		if effect := cells[2]; effect != "live" && effect != "restart" {
			t.Errorf("%s: takes effect %q, want live or restart", cells[0], effect)
		}
	}
	var want []string
	c := reflect.ValueOf(Default())
	walk("", c, c, func(path string, value, _ reflect.Value) {
		want = append(want, fmt.Sprintf("`%s` `%s`", path, text(value)))
	})
	if !slices.Equal(got, want) {
		t.Errorf("docs/configuration.md has\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestChanges(t *testing.T) {
	a, b := Default(), Default()
	if got := Changes(a, b); got != nil {
		t.Errorf("equal, but %v", got)
	}
	b.Overlay.MTU, b.CNI.Capabilities, b.Masquerade.ExcludeCIDRs = 1400, nil, nil
	if got, want := Changes(a, b), []string{"overlay.mtu", "cni.capabilities"}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
