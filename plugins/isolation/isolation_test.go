package isolation

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/answer"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/thread"
)

var web = Question{Namespace: "shop", Name: "web", UID: "7", Sandbox: "0123", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")}}

// serve answers every connection with text, or never if it is empty, and
// returns the socket's path.
func serve(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "poplind.sock")
	answer.With(t, path, text)
	return path
}

func TestAnswers(t *testing.T) {
	for name, row := range map[string]struct{ answer, refused string }{
		"yes":             {"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n", ""},
		"yes, HTTP/1.1":   {"HTTP/1.1 200 OK\r\n\r\n", ""},
		"no":              {"HTTP/1.0 503 Service Unavailable\r\n\r\nno word of pod shop/web\n", "poplind answers 503: no word of pod shop/web"},
		"an older daemon": {"HTTP/1.0 404 Not Found\r\n\r\n404 page not found\n", "404 page not found"},
		"other words":     {"welcome to another program\r\n\r\n", `makes no sense: "welcome to another program"`},
		"half":            {"HTTP/1.0 200 OK\r\nContent-", "makes no sense"},
		"other code":      {"HTTP/1.0 2000 OK\r\n\r\n", "poplind answers 2000"},
		"no end":          {strings.Repeat("x", 64<<10), "makes no sense"},
	} {
		t.Run(name, func(t *testing.T) {
			a := Ask(serve(t, row.answer), "/nowhere", web)
			defer a.Close()
			err := a.Wait()
			refused := new(Refused)
			switch {
			case row.refused == "" && err != nil:
				t.Error(err)
			case row.refused != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), row.refused)):
				t.Errorf("%v, want %q", err, row.refused)
			}
		})
	}
}

// What is asked is what a server of net/http reads.
func TestQuestionIsHTTP(t *testing.T) {
	asked := make(chan Question, 1)
	path := filepath.Join(t.TempDir(), "poplind.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err == nil {
			var q Question
			q, err = ParseQuestion(text)
			asked <- q
		}
		if err != nil || r.Method != http.MethodPost || r.URL.Path != Path {
			http.Error(w, "another question", http.StatusTeapot)
		}
	})}
	go srv.Serve(l)
	t.Cleanup(func() { srv.Close() })
	a := Ask(path, "/nowhere", web)
	defer a.Close()
	err = a.Wait()
	if got := <-asked; err != nil || !reflect.DeepEqual(got, web) {
		t.Errorf("asked %+v, %v", got, err)
	}
}

func TestNobodyIsAsked(t *testing.T) {
	var a *Asked
	if err := a.Wait(); err != nil {
		t.Error(err)
	}
	a.Close()
}

// A daemon that hangs costs a pod Patience, whether it is stopped before or
// after it has accepted.
func TestHungDaemon(t *testing.T) {
	full := filepath.Join(t.TempDir(), "full.sock")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err == nil {
		t.Cleanup(func() { unix.Close(fd) })
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: full}), unix.Listen(fd, 0))
	}
	if err != nil {
		t.Fatal(err)
	}
	// One more than its queue holds has to wait for its turn.
	first := Ask(full, "/nowhere", web)
	t.Cleanup(first.Close)
	for name, path := range map[string]string{"accepts": serve(t, ""), "does not accept": full} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			start := time.Now()
			a := Ask(path, "/nowhere", web)
			defer a.Close()
			err := a.Wait()
			if took := time.Since(start); took < Patience/2 || took > 3*Patience {
				t.Errorf("it took %v", took)
			}
			if err == nil || !strings.Contains(err.Error(), "no answer within 2s") {
				t.Error(err)
			}
		})
	}
}

// Without a daemon, what it last knew decides; with one that cannot be asked,
// nothing does.
func TestNoDaemon(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, File)
	text, err := Namespaces{"shop": true, "default": false}.Marshal()
	if err == nil {
		err = os.WriteFile(file, text, 0o600)
	}
	dead := filepath.Join(dir, "dead.sock")
	l, errListen := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err = errors.Join(err, errListen); err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	spoilt := filepath.Join(dir, "spoilt.json")
	if err := os.WriteFile(spoilt, text[:len(text)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, row := range map[string]struct{ socket, file, namespace, refused string }{
		"free, never there": {dir + "/none.sock", file, "default", ""},
		"free, dead":        {dead, file, "default", ""},
		"policies":          {dead, file, "shop", "policies are about pods of namespace shop"},
		"unknown":           {dead, file, "new", "there was no namespace new"},
		"no file":           {dead, dir + "/none.json", "default", "no such file"},
		"spoilt file":       {dead, spoilt, "default", spoilt},
		"no directory":      {file + "/x.sock", file, "default", "not a directory"},
	} {
		t.Run(name, func(t *testing.T) {
			q := web
			q.Namespace = row.namespace
			a := Ask(row.socket, row.file, q)
			defer a.Close()
			if err := a.Wait(); (err == nil) != (row.refused == "") || err != nil && !strings.Contains(err.Error(), row.refused) {
				t.Errorf("%v, want %q", err, row.refused)
			}
		})
	}
}

// The socket is root's alone; somebody else learns nothing, and starts nothing.
func TestSocketOfAnother(t *testing.T) {
	need.Root(t)
	path := serve(t, "HTTP/1.0 200 OK\r\n\r\n")
	for dir := filepath.Dir(path); dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode().Perm()&1 == 0 {
			if err := os.Chmod(dir, 0o711); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if enter := thread.Discard(func() error {
		const nobody = 65534
		if _, err := unix.SetfsuidRetUid(nobody); err != nil {
			return err
		}
		a := Ask(path, "/nowhere", web)
		defer a.Close()
		err = a.Wait()
		return nil
	}); enter != nil {
		t.Fatal(enter)
	}
	if err == nil || !strings.Contains(err.Error(), "permission denied") {
		t.Error(err)
	}
}

func FuzzParseQuestion(f *testing.F) {
	text, _ := json.Marshal(web)
	f.Add(string(text))
	f.Add(`{"namespace":"a","name":"b","sandbox":"c","addresses":["::ffff:1.2.3.4"]}`)
	f.Add(`{"namespace":"a","name":"b","sandbox":"c","addresses":["fe80::1%eth0"],"newer":1}`)
	f.Add(`{"addresses":null}`)
	f.Fuzz(func(t *testing.T, text string) {
		q, err := ParseQuestion([]byte(text))
		if err != nil {
			return
		}
		if q.Namespace == "" || q.Name == "" || q.Sandbox == "" || len(q.Addresses) == 0 {
			t.Fatalf("accepted %+v", q)
		}
		for _, a := range q.Addresses {
			if !a.IsValid() || a.Is4In6() || a.Zone() != "" {
				t.Fatalf("accepted %+v", q)
			}
		}
		again, err := json.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if other, err := ParseQuestion(again); err != nil || !reflect.DeepEqual(other, q) {
			t.Fatalf("%+v becomes %+v, %v", q, other, err)
		}
	})
}

// FuzzNamespaces: whatever the file has become, what it says is what was
// written, or it says nothing.
func FuzzNamespaces(f *testing.F) {
	text, _ := Namespaces{"shop": true, "default": false}.Marshal()
	f.Add(string(text), "default")
	f.Add(`{"version":1,"namespaces":{"default":null}}`, "default")
	f.Add(`{"version":1,"namespaces":null}`, "")
	f.Add(`{"version":2,"namespaces":{"default":false}}`, "default")
	f.Fuzz(func(t *testing.T, text, namespace string) {
		n, err := ParseNamespaces([]byte(text))
		if err != nil {
			if n.Free(namespace) {
				t.Fatal("what cannot be read frees ", namespace)
			}
			return
		}
		again, err := n.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if other, err := ParseNamespaces(again); err != nil || !reflect.DeepEqual(other, n) {
			t.Fatalf("%v becomes %v, %v", n, other, err)
		}
	})
}

func FuzzVerdict(f *testing.F) {
	f.Add("HTTP/1.0 200 OK\r\n\r\n")
	f.Add("HTTP/1.0 503 no\r\n\r\nbecause")
	f.Add("HTTP/1.0 200\r\n")
	f.Fuzz(func(t *testing.T, answer string) {
		if verdict([]byte(answer)) == nil && (!strings.HasPrefix(answer, "HTTP/1.") || !strings.Contains(answer, "200") || !strings.Contains(answer, "\r\n\r\n")) {
			t.Fatalf("%q lets a pod start", answer)
		}
	})
}
