package store

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"poplin.dev/poplin/plugins/hostport/plan"
)

var web = Entry{
	Link: "plw000000000001", ContainerID: "c1", IfName: "eth0", Pod: "default/web",
	Elements: []plan.Element{{Protocol: plan.TCP, Host: netip.MustParseAddr("::"), HostPort: 80, Pod: netip.MustParseAddr("fd00::5"), PodPort: 8080}},
}

func TestStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", "hostports")
	if _, ok, err := OpenExisting(dir); ok || err != nil {
		t.Fatalf("nothing there: %v, %v", ok, err)
	}
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if Has(dir, web.Link) {
		t.Error("has what was not saved")
	}
	for range 2 { // the second replaces the first
		if err := d.Save(web); err != nil {
			t.Fatal(err)
		}
	}
	list, damaged, err := d.List()
	if err != nil || damaged != nil || !reflect.DeepEqual(list, []Entry{web}) || !Has(dir, web.Link) {
		t.Errorf("list %+v, %v, %v", list, damaged, err)
	}
	if info, err := os.Stat(path(dir, web.Link)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	for range 2 {
		if err := d.Remove(web.Link); err != nil {
			t.Fatal(err)
		}
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("left: %v, %v", files, err)
	}
}

// TestDamagedFiles: each is named, and none hides the others or what is there.
func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	d, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if err := d.Save(web); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty.json": "", "cut.json": `{"elements":[{"protocol":"tcp"`, "foreign.json": "hello", "zero.json": `{"elements":[{}]}`,
		"families.json": `{"elements":[{"protocol":"tcp","host":"::","hostPort":1,"pod":"10.0.0.1","podPort":1}]}`,
		"README":        "not ours", ".hidden": "x",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link.json")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "dir.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	list, damaged, err := d.List()
	if err != nil || len(list) != 8 {
		t.Fatalf("%d entries, %v", len(list), err)
	}
	for _, e := range list {
		switch {
		case e.Link == web.Link:
			if !reflect.DeepEqual(e, web) {
				t.Errorf("%+v", e)
			}
		case len(e.Elements) > 0:
			t.Errorf("%s has elements %v", e.Link, e.Elements)
		case !strings.Contains(damaged.Error(), e.Link+".json"):
			t.Errorf("%s is not named in %v", e.Link, damaged)
		}
	}
}

// FuzzList reads a file that may hold anything: it is named, or its host ports
// are ones that can be served.
func FuzzList(f *testing.F) {
	f.Add([]byte(`{"containerID":"c1","ifName":"eth0","elements":[{"protocol":"tcp","host":"::","hostPort":80,"pod":"fd00::5","podPort":8080}]}`))
	f.Add([]byte(`{"elements":[{"protocol":"sctp","host":"0.0.0.0","hostPort":65536,"pod":"10.0.0.1","podPort":1}]}`))
	f.Add([]byte(`{"elements":null}{}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(path(dir, web.Link), text, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		list, damaged, err := d.List()
		if err != nil || len(list) != 1 || list[0].Link != web.Link {
			t.Fatalf("%+v, %v", list, err)
		}
		for _, e := range list[0].Elements {
			if damaged != nil || !e.Valid() {
				t.Fatalf("%+v, although %v", e, damaged)
			}
		}
	})
}
