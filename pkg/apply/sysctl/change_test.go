package sysctl

import (
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"poplin.dev/poplin/pkg/program"
)

// tree is a directory with such files, and what is in it.
func tree(t *testing.T, files map[string]string) (Tree, func() map[string]string) {
	t.Helper()
	root := t.TempDir()
	for key, value := range files {
		if err := os.MkdirAll(filepath.Join(root, filepath.Dir(key)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, key), []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Tree{Root: root}, func() map[string]string {
		now := map[string]string{}
		for key := range files {
			b, err := os.ReadFile(filepath.Join(root, key))
			if err != nil {
				t.Fatal(err)
			}
			now[key] = string(b)
		}
		return now
	}
}

// A shared setting is noted before it is changed, with what the kernel
// changes of itself, and undone as a whole; one of our device's is not noted.
func TestUndo(t *testing.T) {
	before := map[string]string{
		"ipv4/ip_forward": "0", "ipv4/conf/all/accept_redirects": "0",
		"ipv4/conf/eth0/forwarding": "1", "ipv4/conf/eth1/forwarding": "0", "ipv4/conf/ours/rp_filter": "0",
	}
	tr, now := tree(t, before)
	var noted []Change
	tr.Note = func(c Change) {
		if got := now(); !reflect.DeepEqual(got, before) {
			t.Errorf("noted after %v", got)
		}
		noted = append(noted, c)
	}
	settings := []program.Sysctl{{Key: "ipv4/ip_forward", Value: "1", Shared: true}}
	for range 2 {
		if _, err := tr.Set(settings); err != nil {
			t.Fatal(err)
		}
	}
	want := []Change{{Key: "ipv4/ip_forward", Before: "0", After: "1", Also: map[string]string{
		"ipv4/conf/all/accept_redirects": "0", "ipv4/conf/eth0/forwarding": "1", "ipv4/conf/eth1/forwarding": "0"}}}
	if !reflect.DeepEqual(noted, want) {
		t.Fatalf("noted %+v, want %+v", noted, want)
	}
	tr.Note = func(c Change) { t.Errorf("noted %+v", c) }
	if _, err := tr.Set([]program.Sysctl{{Key: "ipv4/conf/ours/rp_filter", Value: "0"}}); err != nil {
		t.Fatal(err)
	}
	// What the kernel does.
	for key, value := range map[string]string{"ipv4/conf/all/accept_redirects": "1", "ipv4/conf/eth1/forwarding": "1"} {
		if err := tr.write(key, value); err != nil {
			t.Fatal(err)
		}
	}
	if undone, err := tr.Undo(noted[0]); err != nil || !undone || !reflect.DeepEqual(now(), before) {
		t.Errorf("undone %v, %v: %v", undone, err, now())
	}
	if undone, err := tr.Undo(noted[0]); err != nil || undone {
		t.Errorf("undone again: %v, %v", undone, err)
	}
}

// A value that somebody has chosen since is theirs, and what is gone is gone.
func TestUndoLeavesWhatOthersChose(t *testing.T) {
	tr, now := tree(t, map[string]string{"ipv6/conf/eth0/accept_ra": "0"})
	for _, c := range []Change{
		{Key: "ipv6/conf/eth0/accept_ra", Before: "1", After: "2"},
		{Key: "ipv6/conf/gone/accept_ra", Before: "1", After: "2"},
	} {
		if undone, err := tr.Undo(c); undone || err != nil {
			t.Errorf("%s: undone %v, %v", c.Key, undone, err)
		}
	}
	if got := now()["ipv6/conf/eth0/accept_ra"]; got != "0" {
		t.Errorf("accept_ra is %s", got)
	}
}
