package strict

import (
	"strings"
	"testing"
)

func TestObject(t *testing.T) {
	for name, row := range map[string]struct {
		raw  string
		want string // in the error; empty: none
	}{
		"all known":         {`{"mtu":1450,"name":"pods","args":{"x":1}}`, ""},
		"reserved prefix":   {`{"cni.dev/valid-attachments":[]}`, ""},
		"prefix of nothing": {`{"cni.org/x":[]}`, `ipam.cni.org/x: unknown key with value []`},
		"unknown":           {`{"mut":{"a":1}}`, `ipam.mut: unknown key with value {"a":1}; remove it, or use one of: args, cni.dev/, mtu, name`},
		"other case":        {`{"MTU":1}`, `ipam.MTU: unknown key`},
		"wrong type":        {`{"mtu":"big"}`, `ipam.mtu: cannot use "big"`},
		"no object":         {`[1]`, `ipam: want a JSON object, have [1]`},
		"nothing":           {``, `ipam: want a JSON object, have nothing`},
		"long value":        {`{"x":"` + strings.Repeat("y", 200) + `"}`, `yyy...`},
	} {
		t.Run(name, func(t *testing.T) {
			var mtu int
			var n string
			err := Object([]byte(row.raw), "ipam", Fields{"mtu": &mtu, "name": &n, "args": nil, "cni.dev/": nil})
			switch {
			case row.want == "" && err != nil:
				t.Fatal(err)
			case row.want != "" && (err == nil || !strings.Contains(err.Error(), row.want)):
				t.Fatalf("got %v, want %q", err, row.want)
			}
		})
	}
}
