package isolation

import (
	"context"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/claims"
	"poplin.dev/poplin/plugins/isolation"
	"poplin.dev/poplin/test/await"
)

// fixture is the module with policies that hold when the test says so.
type fixture struct {
	*Module
	deps Deps

	mu     sync.Mutex
	claims []claims.Claim
	holds  chan struct{}
	saved  int
}

func start(t *testing.T, dir string) *fixture {
	t.Helper()
	f := &fixture{holds: make(chan struct{})}
	f.deps = Deps{
		Dir: dir,
		Claim: func(c claims.Claim) <-chan struct{} {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.claims = append(f.claims, c)
			return f.holds
		},
		Waiting: func() string { return "" },
		Saved:   func() { f.mu.Lock(); f.saved++; f.mu.Unlock() },
		Log:     slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	f.Module = New(f.deps)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- f.Run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	return f
}

func (f *fixture) asked() []claims.Claim {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.claims
}

func ask(h http.Handler, body string) (code int, text string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodPost, isolation.Path, strings.NewReader(body)))
	return w.Code, w.Body.String()
}

const question = `{"namespace":"shop","name":"web","uid":"7","sandbox":"0123","addresses":["10.244.1.2","fd00::2"]}`

func TestPodOfAFreeNamespaceDoesNotWait(t *testing.T) {
	f := start(t, t.TempDir())
	f.Set(map[string]bool{"shop": false})
	if code, text := ask(f, question); code != 200 {
		t.Errorf("%d %s", code, text)
	}
	// Its address is known all the same: policies may come.
	got := f.asked()
	if len(got) != 1 || got[0].Pod != (policy.Key{Namespace: "shop", Name: "web"}) || got[0].UID != "7" || got[0].Sandbox != "0123" || len(got[0].Addresses) != 2 {
		t.Errorf("claimed %+v", got)
	}
}

func TestPodWaitsForItsPolicies(t *testing.T) {
	f := start(t, t.TempDir())
	f.Set(map[string]bool{"shop": true})
	answered := make(chan int)
	go func() { code, _ := ask(f, question); answered <- code }()
	await.Success(t, 10*time.Second, func() error {
		if len(f.asked()) == 0 {
			return os.ErrNotExist
		}
		return nil
	})
	select {
	case code := <-answered:
		t.Fatalf("answered %d before policies held", code)
	case <-time.After(50 * time.Millisecond):
	}
	close(f.holds)
	if code := <-answered; code != 200 {
		t.Error(code)
	}
}

// Nobody hears of the pod, or policies cannot be enforced: it is said why,
// before the plugin has lost its patience.
func TestPodIsRefused(t *testing.T) {
	for name, row := range map[string]struct {
		namespaces map[string]bool
		waiting    string
		want       string
	}{
		"no such pod":       {map[string]bool{"shop": true}, "", "the API server has not told poplind of it"},
		"unknown namespace": {map[string]bool{"bank": false}, "", "has not told"},
		"nothing known":     {nil, "reading the pods from the API server", "reading the pods"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := start(t, t.TempDir())
			f.deps.Waiting = func() string { return row.waiting }
			m := New(f.deps)
			if row.namespaces != nil {
				m.Set(row.namespaces)
			}
			begun := time.Now()
			code, text := ask(m, question)
			if code != http.StatusServiceUnavailable || !strings.Contains(text, row.want) || !strings.Contains(text, "shop/web") {
				t.Errorf("%d %s", code, text)
			}
			if took := time.Since(begun); took < patience {
				t.Errorf("after %v", took)
			}
		})
	}
}

// A daemon that ends while it is asked does not say yes.
func TestEndIsNoAnswer(t *testing.T) {
	f := start(t, t.TempDir())
	f.Set(map[string]bool{"shop": true})
	ctx, end := context.WithCancel(t.Context())
	end()
	w := httptest.NewRecorder()
	f.ServeHTTP(w, httptest.NewRequest(http.MethodPost, isolation.Path, strings.NewReader(question)).WithContext(ctx))
	if w.Code != http.StatusServiceUnavailable {
		t.Error(w.Code)
	}
}

func TestBadQuestions(t *testing.T) {
	f := start(t, t.TempDir())
	f.Set(map[string]bool{"shop": false})
	for _, body := range []string{"", "{}", `{"namespace":"shop"}`, question + strings.Repeat(" ", maxQuestion)} {
		if code, text := ask(f, body); code != http.StatusBadRequest {
			t.Errorf("%.40q: %d %s", body, code, text)
		}
	}
	if got := f.asked(); len(got) > 0 {
		t.Errorf("claimed %+v", got)
	}
}

// The file says what was set, an heir of the daemon knows it, and says so once.
func TestFile(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	f := start(t, dir)
	if f.Saved() {
		t.Error("saved before anything was known")
	}
	for _, want := range []map[string]bool{{}, {"shop": true}, {"shop": true, "bank": false}, {"bank": true}} {
		f.Set(want)
		await.Success(t, 10*time.Second, func() error {
			text, err := os.ReadFile(filepath.Join(dir, isolation.File))
			if err != nil {
				return err
			}
			got, err := isolation.ParseNamespaces(text)
			if err == nil && !maps.Equal(got, want) {
				err = os.ErrInvalid
			}
			return err
		})
	}
	if info, err := os.Stat(filepath.Join(dir, isolation.File)); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	<-f.Ready()
	await.Success(t, 10*time.Second, func() error {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.saved != 1 {
			return os.ErrNotExist
		}
		return nil
	})
	heir := start(t, dir)
	if !heir.Saved() || heir.free("bank") || heir.free("shop") {
		t.Errorf("the next daemon knows %v", heir.namespaces)
	}
	if err := Remove(dir); err != nil {
		t.Error(err)
	}
	if start(t, dir).Saved() || Remove(dir) != nil {
		t.Error("a daemon knows what was removed")
	}
}

func TestSpoiltFile(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, isolation.File), []byte(`{"version":1,"name`), 0o600); err != nil {
		t.Fatal(err)
	}
	f := start(t, dir)
	if f.Saved() || f.free("shop") {
		t.Error("a spoilt file says something")
	}
	f.Set(map[string]bool{"shop": false})
	<-f.Ready()
}

// FuzzServeHTTP: whatever is asked is answered, and claims nothing that is no
// address of a pod.
func FuzzServeHTTP(f *testing.F) {
	f.Add(question)
	f.Add(`{"namespace":"","name":"web","sandbox":"1","addresses":["0.0.0.0"]}`)
	f.Add(`[`)
	held := make(chan struct{})
	close(held)
	f.Fuzz(func(t *testing.T, body string) {
		claimed := 0
		m := New(Deps{Dir: "/nowhere", Waiting: func() string { return "" }, Log: slog.New(slog.DiscardHandler), Claim: func(c claims.Claim) <-chan struct{} {
			if claimed++; c.Pod.Namespace == "" || c.Pod.Name == "" || len(c.Addresses) == 0 {
				t.Errorf("claimed %+v", c)
			}
			return held
		}})
		switch code, text := ask(m, body); {
		case code == 200 && claimed == 1:
		case code == http.StatusBadRequest && claimed == 0 && text != "":
		default:
			t.Fatalf("%q: %d %s, %d claims", body, code, text, claimed)
		}
	})
}
