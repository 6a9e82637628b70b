package store

import (
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// from picks the addresses in turn.
func from(addrs ...string) Pick {
	return func(netip.Addr) iter.Seq[netip.Addr] {
		return func(yield func(netip.Addr) bool) {
			for _, s := range addrs {
				if !yield(netip.MustParseAddr(s)) {
					return
				}
			}
		}
	}
}

func names(t *testing.T, d *Store) (list []string) {
	t.Helper()
	entries, err := os.ReadDir(d.Dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return list
}

func put(t *testing.T, d *Store, name, content string) {
	t.Helper()
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

var web = Owner{"web", "eth0"}

// kernel is one in memory.
type kernel struct {
	linked map[Owner]bool
	routed map[netip.Addr]bool
}

func (k kernel) Linked(id, ifName string) (bool, error) { return k.linked[Owner{id, ifName}], nil }
func (k kernel) Routed(a netip.Addr) (bool, error)      { return k.routed[a], nil }

// open is a store on dir in a boot that lasts, where nobody has a link.
func open(t *testing.T, dir string) *Store {
	now := Moment{Boot: "7a1c1f0e-0000-4000-8000-000000000001", Up: time.Minute}
	return &Store{
		Dir: dir, State: filepath.Join(t.TempDir(), ".poplin", "pods"),
		Kernel: kernel{map[Owner]bool{}, map[netip.Addr]bool{}},
		Clock:  func() (Moment, error) { return now, nil },
		Warn:   func(text string) { t.Log(text) },
	}
}

func TestFilesAreUpstreams(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "networks", "pods"))
	got, _, err := d.Reserve(web, []Pick{from("10.1.0.2"), from("fd00::2")})
	if err != nil || len(got) != 2 {
		t.Fatal(got, err)
	}
	for name, want := range map[string]string{
		"10.1.0.2": "web\r\neth0", "fd00::2": "web\r\neth0",
		"last_reserved_ip.0": "10.1.0.2", "last_reserved_ip.1": "fd00::2", "lock": "",
	} {
		if b, err := os.ReadFile(d.path(name)); err != nil || string(b) != want {
			t.Errorf("%s holds %q (%v), want %q", name, b, err, want)
		}
	}
	if info, err := os.Stat(d.path("10.1.0.2")); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := d.Release(web, nil, 2); err != nil {
		t.Fatal(err)
	}
	if got, want := names(t, d), []string{"last_reserved_ip.0", "last_reserved_ip.1", "lock"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

func TestLastReservedShrinks(t *testing.T) {
	d := open(t, t.TempDir())
	for _, a := range []string{"10.1.0.100", "10.1.0.2"} {
		if _, _, err := d.Reserve(Owner{a, "eth0"}, []Pick{from(a)}); err != nil {
			t.Fatal(err)
		}
		if got := d.last(0); got.String() != a {
			t.Errorf("last is %s, want %s", got, a)
		}
	}
}

func TestReserveAllOrNothing(t *testing.T) {
	d := open(t, t.TempDir())
	put(t, d, "fd00::2", "other\r\neth0")
	_, _, err := d.Reserve(web, []Pick{from("10.1.0.2"), from("fd00::2")})
	var exhausted *ExhaustedError
	if !errors.As(err, &exhausted) || exhausted.Pick != 1 {
		t.Fatalf("got %v, want range set 1 exhausted", err)
	}
	if got, want := names(t, d), []string{"fd00::2", "last_reserved_ip.0", "lock"}; !slices.Equal(got, want) {
		t.Errorf("left: %v, want %v", got, want)
	}
}

func TestReserveTwice(t *testing.T) {
	d := open(t, t.TempDir())
	if _, _, err := d.Reserve(web, []Pick{from("10.1.0.2")}); err != nil {
		t.Fatal(err)
	}
	before := names(t, d)
	_, _, err := d.Reserve(web, []Pick{from("10.1.0.3")})
	var duplicate *DuplicateError
	if !errors.As(err, &duplicate) || !slices.Contains(duplicate.Addrs, "10.1.0.2") {
		t.Fatalf("got %v, want a duplicate of 10.1.0.2", err)
	}
	if got := names(t, d); !slices.Equal(got, before) {
		t.Errorf("before %v, after %v", before, got)
	}
	if _, _, err := d.Reserve(Owner{"web", "eth1"}, []Pick{from("10.1.0.3")}); err != nil {
		t.Errorf("another interface: %v", err)
	}
}

func TestReserveAtOnceForOneOwner(t *testing.T) {
	d := open(t, t.TempDir())
	var wg sync.WaitGroup
	var mu sync.Mutex
	won := 0
	for i := range 8 {
		wg.Go(func() {
			if _, _, err := d.Reserve(web, []Pick{from(fmt.Sprintf("10.1.0.%d", i+2))}); err == nil {
				mu.Lock()
				won++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if won > 1 {
		t.Errorf("%d reservations for one owner", won)
	}
	if err := d.Release(web, nil, 1); err != nil {
		t.Fatal(err)
	}
	for _, name := range names(t, d) {
		if name != "lock" && !strings.HasPrefix(name, "last_") {
			t.Errorf("%s is left", name)
		}
	}
}

// TestWhereAnAddIsKilled begins with every state that a killed ADD can leave.
func TestWhereAnAddIsKilled(t *testing.T) {
	full := web.content()
	for name, leave := range map[string]func(t *testing.T, d *Store){
		"marker made":    func(t *testing.T, d *Store) { put(t, d, web.marker(), "") },
		"marker written": func(t *testing.T, d *Store) { put(t, d, web.marker(), full) },
		"one of two linked": func(t *testing.T, d *Store) {
			put(t, d, web.marker(), full)
			if err := os.Link(d.path(web.marker()), d.path("10.1.0.2")); err != nil {
				t.Fatal(err)
			}
		},
		"upstream, between making and writing": func(t *testing.T, d *Store) { put(t, d, "10.1.0.2", "") },
		"upstream, one of two":                 func(t *testing.T, d *Store) { put(t, d, "10.1.0.2", full) },
		"a copy that lost its links": func(t *testing.T, d *Store) {
			put(t, d, web.marker(), full)
			put(t, d, "10.1.0.2", full)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, t.TempDir())
			leave(t, d)
			if err := d.Release(web, nil, 2); err != nil {
				t.Fatal(err)
			}
			got, _, err := d.Reserve(web, []Pick{from("10.1.0.2"), from("fd00::2")})
			if err != nil || len(got) != 2 {
				t.Fatalf("%v, %v; directory has %v", got, err, names(t, d))
			}
			if err := d.Release(web, got, 2); err != nil {
				t.Fatal(err)
			}
			for _, n := range names(t, d) {
				if n != "lock" && !strings.HasPrefix(n, "last_") {
					t.Errorf("%s is left", n)
				}
			}
		})
	}
}

func TestRelease(t *testing.T) {
	addr := netip.MustParseAddr
	for name, row := range map[string]struct {
		files  map[string]string
		expect []netip.Addr
		wanted int
		left   []string
	}{
		"empty directory":      {nil, nil, 2, nil},
		"expected":             {map[string]string{"10.1.0.2": "web\r\neth0", "10.1.0.3": "db\r\neth0"}, []netip.Addr{addr("10.1.0.2")}, 1, []string{"10.1.0.3"}},
		"another's by now":     {map[string]string{"10.1.0.2": "db\r\neth0"}, []netip.Addr{addr("10.1.0.2")}, 1, []string{"10.1.0.2"}},
		"more than expected":   {map[string]string{"10.1.0.2": "web\r\neth0", "fd00::2": "web\r\neth0"}, []netip.Addr{addr("10.1.0.2")}, 2, nil},
		"unknown number":       {map[string]string{"10.1.0.2": "web\r\neth0", "fd00::2": "web\r\neth0"}, nil, 0, nil},
		"of an old host-local": {map[string]string{"10.1.0.2": "web", "10.1.0.3": "web2"}, nil, 1, []string{"10.1.0.3"}},
		"with a line's end":    {map[string]string{"10.1.0.2": "web\r\neth0\n"}, nil, 1, nil},
		"another interface":    {map[string]string{"10.1.0.2": "web\r\neth1"}, nil, 1, []string{"10.1.0.2"}},
		"what is no address":   {map[string]string{"README": "hands off", "10.1.0.2": "web\r\neth0"}, nil, 1, []string{"README"}},
		"another's empty file": {map[string]string{"10.1.0.2": ""}, nil, 1, []string{"10.1.0.2"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := open(t, t.TempDir())
			for n, content := range row.files {
				put(t, d, n, content)
			}
			for range 2 {
				if err := d.Release(web, row.expect, row.wanted); err != nil {
					t.Fatal(err)
				}
			}
			if got := slices.DeleteFunc(names(t, d), func(n string) bool { return n == "lock" }); !slices.Equal(got, row.left) {
				t.Errorf("left %v, want %v", got, row.left)
			}
		})
	}
}

func TestReleaseWithoutDirectory(t *testing.T) {
	d := open(t, filepath.Join(t.TempDir(), "none"))
	if err := d.Release(web, nil, 1); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(d.Dir); err == nil {
		t.Error("DEL made the directory")
	}
}

// whose is whom a reservation with that content is for.
func whose(content string) Owner {
	id, ifName, _ := strings.Cut(strings.TrimSpace(content), "\r\n")
	return Owner{id, ifName}
}

// FuzzDir puts anything into the directory: no owner's address is ever given
// to another, and what is reserved can be released.
func FuzzDir(f *testing.F) {
	f.Add("10.1.0.2", "db\r\neth0", "last_reserved_ip.0", "10.1.0.2")
	f.Add("lock", "x", ".owner-0000000000000000", "web\r\neth0")
	f.Add(web.marker(), "web\r\neth0", "10.1.0.3", "web")
	f.Add("10.1.0.2", "", "fd00::2", "web\r\neth0\r\n")
	f.Fuzz(func(t *testing.T, name1, content1, name2, content2 string) {
		d := open(t, t.TempDir())
		for name, content := range map[string]string{name1: content1, name2: content2} {
			if name == "" || strings.ContainsAny(name, "/\x00") || name == "." || name == ".." || len(name) > 200 {
				return
			}
			put(t, d, name, content)
		}
		foreign := func(s string) string { // an owner's content before and after
			if s != "last_reserved_ip.0" && s != "last_reserved_ip.1" && s != "lock" && s != web.marker() {
				b, _ := os.ReadFile(d.path(s))
				if c := strings.TrimSpace(string(b)); c != "" && c != web.content() && c != web.ContainerID {
					return string(b)
				}
			}
			return ""
		}
		before := foreign(name1) + "|" + foreign(name2)
		addrs, _, err := d.Reserve(web, []Pick{from("10.1.0.2", "10.1.0.3", "10.1.0.4"), from("fd00::2", "fd00::3", "fd00::4")})
		if after := foreign(name1) + "|" + foreign(name2); before != after {
			t.Fatalf("before %q, after %q", before, after)
		}
		if err != nil {
			return
		}
		// GC keeps what it shall, whatever else there is.
		if err := d.Collect([]Owner{web, whose(content1), whose(content2)}); err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if !d.Holds(web, a) {
				t.Fatalf("%s is not reserved", a)
			}
		}
		if err := d.Release(web, addrs, len(addrs)); err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if d.Holds(web, a) {
				t.Fatalf("%s is left", a)
			}
		}
		if after := foreign(name1) + "|" + foreign(name2); before != after {
			t.Fatalf("before %q, after %q", before, after)
		}
	})
}
