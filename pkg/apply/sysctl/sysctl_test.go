package sysctl

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/program"
)

func TestSet(t *testing.T) {
	for _, tt := range []struct {
		name     string
		files    map[string]string
		settings []program.Sysctl
		want     map[string]string
		result   diff.Result
		err      string
	}{
		{
			name:     "written where it differs",
			files:    map[string]string{"ipv4/ip_forward": "0\n", "ipv4/other": "1\n"},
			settings: []program.Sysctl{{Key: "ipv4/ip_forward", Value: "1"}, {Key: "ipv4/other", Value: "1"}},
			want:     map[string]string{"ipv4/ip_forward": "1"},
			result:   diff.Result{Changed: 1},
		},
		{
			name:     "a larger number is right where a least one is wanted",
			files:    map[string]string{"large": "100\n", "small": "9\n"},
			settings: []program.Sysctl{{Key: "large", Value: "20", AtLeast: true}, {Key: "small", Value: "20", AtLeast: true}},
			want:     map[string]string{"large": "100", "small": "20"},
			result:   diff.Result{Changed: 1},
		},
		{
			name:     "missing file names key",
			settings: []program.Sysctl{{Key: "ipv4/ip_forward", Value: "1"}},
			result:   diff.Result{Failed: 1},
			err:      "read sysctl net/ipv4/ip_forward",
		},
		{
			name:     "missing optional file is fine",
			settings: []program.Sysctl{{Key: "ipv6/conf/x/accept_ra", Value: "0", Optional: true}},
		},
		{
			name:  "condition holds",
			files: map[string]string{"ipv6/conf/eth0/accept_ra": "1\n", "ipv6/conf/eth0/forwarding": "0\n"},
			settings: []program.Sysctl{{Key: "ipv6/conf/eth0/accept_ra", Value: "2", If: []program.Setting{
				{Key: "ipv6/conf/eth0/accept_ra", Value: "1"}, {Key: "ipv6/conf/eth0/forwarding", Value: "0"}}}},
			want:   map[string]string{"ipv6/conf/eth0/accept_ra": "2"},
			result: diff.Result{Changed: 1},
		},
		{
			name:  "condition does not hold",
			files: map[string]string{"ipv6/conf/eth0/accept_ra": "1\n", "ipv6/conf/eth0/forwarding": "1\n"},
			settings: []program.Sysctl{{Key: "ipv6/conf/eth0/accept_ra", Value: "2", If: []program.Setting{
				{Key: "ipv6/conf/eth0/forwarding", Value: "0"}}}},
			want: map[string]string{"ipv6/conf/eth0/accept_ra": "1"},
		},
		{
			name:     "key outside the tree",
			settings: []program.Sysctl{{Key: "../kernel/panic", Value: "1"}},
			result:   diff.Result{Failed: 1},
			err:      `sysctl key "../kernel/panic"`,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			for name, text := range tt.files {
				path := filepath.Join(root, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			tree := Tree{Root: root}
			res, err := tree.Set(tt.settings)
			if res != tt.result {
				t.Errorf("result %+v, want %+v", res, tt.result)
			}
			if tt.err == "" && err != nil || tt.err != "" && (err == nil || !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
			for name, want := range tt.want {
				b, err := os.ReadFile(filepath.Join(root, name))
				if err != nil || strings.TrimSpace(string(b))[:len(want)] != want {
					t.Errorf("%s holds %q (%v), want %q", name, b, err, want)
				}
			}
			if again, _ := tree.Set(tt.settings); again.Changed != 0 {
				t.Errorf("second Set changed %d", again.Changed)
			}
		})
	}
}
