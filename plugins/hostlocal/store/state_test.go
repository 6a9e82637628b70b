package store

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// tick makes the store's clock one that the test moves.
func tick(s *Store) *Moment {
	now := &Moment{Boot: "7a1c1f0e-0000-4000-8000-000000000001", Up: time.Hour}
	s.Clock = func() (Moment, error) { return *now, nil }
	return now
}

// ours is the files that are neither the lock nor the place in the round.
func ours(t *testing.T, s *Store) []string {
	return slices.DeleteFunc(names(t, s), func(n string) bool { return n == "lock" || strings.HasPrefix(n, "last_") })
}

func reserve(t *testing.T, s *Store, owner Owner, picks ...Pick) []netip.Addr {
	t.Helper()
	addrs, done, err := s.Reserve(owner, picks)
	if err != nil {
		t.Fatal(err)
	}
	done()
	return addrs
}

func TestReleasedAddressesRest(t *testing.T) {
	s := open(t, t.TempDir())
	now := tick(s)
	all := from("10.1.0.2", "10.1.0.3", "10.1.0.4")
	for _, id := range []string{"a", "b", "c"} {
		reserve(t, s, Owner{id, "eth0"}, all)
	}
	release := func(id string) {
		if err := s.Release(Owner{id, "eth0"}, nil, 1); err != nil {
			t.Fatal(err)
		}
	}
	want := func(addr string) {
		t.Helper()
		id := Owner{"new-" + addr + now.Up.String(), "eth0"}
		if got := reserve(t, s, id, all); got[0].String() != addr {
			t.Errorf("got %v, want %s", got, addr)
		}
	}
	release("b")
	now.Up += time.Second
	release("a")
	now.Up += time.Second
	want("10.1.0.3") // it rested longest, and there is no other
	now.Up += time.Second
	release("c")
	now.Up += restTime - 2*time.Second // .2 is rested, .4 is not
	want("10.1.0.2")
	want("10.1.0.4")

	// Another boot knows nothing of these.
	now.Boot, now.Up = strings.Replace(now.Boot, "7a", "7b", 1), time.Second
	if got := s.resting(*now); len(got) > 0 {
		t.Errorf("resting after a reboot: %v", got)
	}
}

func TestWhatAnEarlierBootLeft(t *testing.T) {
	s := open(t, t.TempDir())
	now := tick(s)
	live, gone, running := Owner{"live", "eth0"}, Owner{"gone", "eth0"}, Owner{"running", "eth0"}
	pool := from("10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5", "10.1.0.6", "10.1.0.7")
	reserve(t, s, live, pool, from("fd00::2"))
	reserve(t, s, gone, pool, from("fd00::3"))
	s.Kernel.(kernel).linked[live] = true
	put(t, s, "10.1.0.4", "of-upstream\r\neth0")
	put(t, s, "10.1.0.5", "") // after a power cut
	put(t, s, Owner{"killed", "eth0"}.marker(), "killed\r\neth0")
	_, done, err := s.Reserve(running, []Pick{from("10.1.0.7")})
	if err != nil {
		t.Fatal(err)
	}
	defer done()

	before := names(t, s)
	if reserve(t, s, Owner{"same-boot", "eth1"}, from("10.1.0.8")); len(names(t, s)) != len(before)+2 {
		t.Errorf("in the same boot: before %v, after %v", before, names(t, s))
	}
	now.Boot = strings.Replace(now.Boot, "7a", "7b", 1)
	if err := s.Free([]Pick{pool}); err != nil { // a STATUS may be first
		t.Error(err)
	}
	want := []string{running.marker(), live.marker(), "10.1.0.2", "10.1.0.4", "10.1.0.7", "fd00::2"}
	slices.Sort(want)
	if got := ours(t, s); !slices.Equal(got, want) {
		t.Errorf("after a reboot: %v, want %v", got, want)
	}
	if info, err := os.Stat(s.State); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

// A boot that is not known tells nothing of reservations.
func TestUnknownBootReleasesNothing(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"missing": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
		"cut":     func(path string) error { return os.Truncate(path, 7) },
		"a link": func(path string) error {
			return errors.Join(os.Remove(path), os.Symlink("/proc/sys/kernel/random/boot_id", path))
		},
		"a directory in the way": func(path string) error { return os.Mkdir(path+".next", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			reserve(t, s, web, from("10.1.0.2"))
			if err := spoil(filepath.Join(s.State, "boot")); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				if got := reserve(t, s, Owner{"db", "eth0"}, from("10.1.0.2", "10.1.0.3")); got[0].String() != "10.1.0.3" {
					t.Errorf("got %v", got)
				}
				if err := s.Release(Owner{"db", "eth0"}, nil, 1); err != nil {
					t.Error(err)
				}
			}
			if b, err := os.ReadFile(filepath.Join(s.State, "boot")); err != nil || len(b) != 36 {
				t.Errorf("boot is %q, %v", b, err)
			}
		})
	}
}

// What stands in an address' way and reserves it for nobody is put aside,
// and somebody's file elsewhere is not touched.
func TestQuarantine(t *testing.T) {
	for name, in := range map[string]func(path string) error{
		"empty":       func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"spaces":      func(path string) error { return os.WriteFile(path, []byte("\r\n  "), 0o600) },
		"zeros":       func(path string) error { return os.WriteFile(path, make([]byte, 30), 0o600) },
		"prose":       func(path string) error { return os.WriteFile(path, []byte("hands off, please"), 0o600) },
		"huge":        func(path string) error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, 1<<40)) },
		"link":        func(path string) error { return os.Symlink("/etc/passwd", path) },
		"broken link": func(path string) error { return os.Symlink("/no/such/file", path) },
		"directory":   func(path string) error { return os.MkdirAll(path+"/deep/er", 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, t.TempDir())
			var warned []string
			s.Warn = func(text string) { warned = append(warned, text) }
			for _, file := range []string{"10.1.0.2", "lock", "last_reserved_ip.0", web.marker()} {
				if err := in(s.path(file)); err != nil {
					t.Fatal(err)
				}
			}
			put(t, s, "README", "hands off")
			if err := s.Free([]Pick{from("10.1.0.2")}); err != nil {
				t.Errorf("STATUS: %v", err)
			}
			if got := reserve(t, s, web, from("10.1.0.2")); len(got) != 1 {
				t.Errorf("got %v", got)
			}
			if len(warned) == 0 || !slices.ContainsFunc(warned, func(w string) bool { return strings.Contains(w, s.path("10.1.0.2")) }) {
				t.Errorf("warnings: %q", warned)
			}
			if got := s.last(0).String(); got != "10.1.0.2" {
				t.Errorf("last is %s", got)
			}
			if got, err := os.ReadFile(s.path("README")); err != nil || string(got) != "hands off" {
				t.Errorf("README: %q, %v", got, err)
			}
			if err := s.Release(web, nil, 1); err != nil {
				t.Error(err)
			}
			if got := ours(t, s); !slices.Equal(got, []string{"README"}) {
				t.Errorf("left: %v", got)
			}
		})
	}
}

func TestAddressInUseIsNotTakenFromASpoiltFile(t *testing.T) {
	s := open(t, t.TempDir())
	put(t, s, "10.1.0.2", "")
	s.Kernel.(kernel).routed[netip.MustParseAddr("10.1.0.2")] = true
	_, _, err := s.Reserve(web, []Pick{from("10.1.0.2")})
	if e := new(ExhaustedError); !errors.As(err, &e) {
		t.Errorf("got %v", err)
	}
	if !slices.Contains(names(t, s), "10.1.0.2") {
		t.Error("its file is gone")
	}
}

func TestKilledAddIsTakenOver(t *testing.T) {
	s := open(t, t.TempDir())
	_, done, err := s.Reserve(web, []Pick{from("10.1.0.2"), from("fd00::2")})
	if err != nil {
		t.Fatal(err)
	}
	second := []Pick{from("10.1.0.2", "10.1.0.3"), from("fd00::2", "fd00::3")}
	if _, _, err := s.Reserve(web, second); !errors.As(err, new(*DuplicateError)) {
		t.Errorf("while it runs: %v", err)
	}
	done() // as the kernel does for a killed one
	if got := reserve(t, s, web, second...); got[0].String() != "10.1.0.3" {
		t.Errorf("got %v; the first one's address rests", got)
	}
	if got := ours(t, s); len(got) != 3 {
		t.Errorf("reserved: %v", got)
	}
	s.Kernel.(kernel).linked[web] = true
	if _, _, err := s.Reserve(web, second); !errors.As(err, new(*DuplicateError)) {
		t.Errorf("while it is attached: %v", err)
	}
}

func TestCollectGoesOn(t *testing.T) {
	s := open(t, t.TempDir())
	db, running := Owner{"db", "eth0"}, Owner{"running", "eth0"}
	for _, o := range []Owner{web, db, {"mail", "eth0"}, {"mail", "eth1"}} {
		reserve(t, s, o, from("10.1.0.2", "10.1.0.3", "10.1.0.4", "10.1.0.5"))
	}
	put(t, s, "10.1.0.6", "web") // of an old host-local
	put(t, s, "10.1.0.7", "old")
	put(t, s, "README", "hands off")
	_, done, err := s.Reserve(running, []Pick{from("10.1.0.8")})
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	s.Kernel.(kernel).linked[db] = true
	err = s.Collect([]Owner{web})
	if err == nil || !strings.Contains(err.Error(), "container db: its link is still there") {
		t.Errorf("got %v", err)
	}
	want := []string{web.marker(), db.marker(), running.marker(), "10.1.0.2", "10.1.0.3", "10.1.0.6", "10.1.0.8", "README"}
	slices.Sort(want)
	if got := ours(t, s); !slices.Equal(got, want) {
		t.Errorf("left %v, want %v", got, want)
	}
	s.Dir += "/none"
	if err := s.Collect(nil); err != nil {
		t.Error(err)
	}
}

// FuzzState puts anything into the files that are ours alone: an address is
// reserved all the same, never one that another has.
func FuzzState(f *testing.F) {
	const boot = "7a1c1f0e-0000-4000-8000-000000000001"
	f.Add(boot, boot+"\n10.1.0.2 3599000000000\n")
	f.Add("another-boot-of-thirty-six-characters", boot+"\n10.1.0.2 -1\n10.1.0.3 99999999999999999999\n")
	f.Add("", "10.1.0.2")
	f.Add("\x00", boot)
	f.Fuzz(func(t *testing.T, bootText, releasedText string) {
		s := open(t, t.TempDir())
		tick(s)
		db := Owner{"db", "eth0"}
		reserve(t, s, db, from("10.1.0.2"))
		s.Kernel.(kernel).linked[db] = true
		for name, text := range map[string]string{bootFile: bootText, releasedFile: releasedText} {
			if err := os.WriteFile(s.state(name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got := reserve(t, s, web, from("10.1.0.2", "10.1.0.3", "10.1.0.4"))
		if got[0].String() == "10.1.0.2" {
			t.Fatal("the address of another")
		}
		if err := s.Release(web, got, 1); err != nil {
			t.Fatal(err)
		}
		now, _ := s.Clock()
		if _, ok := s.resting(now)[got[0]]; !ok {
			t.Fatalf("%s does not rest", got[0])
		}
	})
}
