package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReserve(t *testing.T) {
	for _, tt := range []struct {
		name, before string
		ports        []uint16
		want         string
		noted        bool
	}{
		{"below the range nothing is at risk", "\n", []uint16{30080, 31000}, "\n", false},
		{"in the range, joined with what others reserved", "8080,40000-40002\n", []uint16{40003, 50000, 30080}, "8080,40000-40003,50000", true},
		{"reserved already", "40000-40010\n", []uint16{40005}, "40000-40010\n", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			file := filepath.Join(root, reservedPorts)
			if err := os.Mkdir(filepath.Dir(file), 0o700); err != nil {
				t.Fatal(err)
			}
			for path, text := range map[string]string{file: tt.before, filepath.Join(root, portRange): "32768\t60999\n"} {
				if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			noted := false
			if err := (Tree{Root: root, Note: func(c Change) { noted = c.Before == strings.TrimSpace(tt.before) }}).Reserve(tt.ports); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			// Nothing truncates a sysctl.
			if !strings.HasPrefix(string(got), tt.want) || noted != tt.noted {
				t.Errorf("got %q, want %q; noted %v", got, tt.want, noted)
			}
		})
	}
	if _, err := parsePorts("1,x"); err == nil {
		t.Error("1,x is a list of ports")
	}
}
