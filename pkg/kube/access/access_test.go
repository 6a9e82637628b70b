package access

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
)

// server knows the tokens "reader" and "other", and counts what it is asked.
type server struct {
	mu    sync.Mutex
	asked map[string]int
	away  bool
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked[r.URL.Path]++
	var o struct {
		Spec struct {
			Token                 string
			User                  string
			Groups                []string
			NonResourceAttributes struct{ Path, Verb string }
		}
	}
	_ = json.NewDecoder(r.Body).Decode(&o)
	w.Header().Set("Content-Type", "application/json")
	switch token, attr := o.Spec.Token, o.Spec.NonResourceAttributes; {
	case s.away:
		w.WriteHeader(http.StatusInternalServerError)
	case r.URL.Path == "/apis/authentication.k8s.io/v1/tokenreviews":
		known := token == "reader" || token == "other"
		fmt.Fprintf(w, `{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":%v,"user":{"username":%q,"groups":["g"]}}}`, known, token)
	case r.URL.Path == "/apis/authorization.k8s.io/v1/subjectaccessreviews":
		may := o.Spec.User == "reader" && o.Spec.Groups[0] == "g" && attr.Path == "/metrics" && attr.Verb == "get"
		fmt.Fprintf(w, `{"kind":"SubjectAccessReview","apiVersion":"authorization.k8s.io/v1","status":{"allowed":%v}}`, may)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *server) requests() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, count := range s.asked {
		n += count
	}
	return n
}

func TestMayGet(t *testing.T) {
	s := &server{asked: map[string]int{}}
	http := httptest.NewServer(s)
	defer http.Close()
	r, err := New(&rest.Config{Host: http.URL, QPS: 1000, Burst: 1000})
	if err != nil {
		t.Fatal(err)
	}
	check := func(token, path, wantUser string, want bool, asked int) {
		t.Helper()
		before := s.requests()
		user, allowed, err := r.MayGet(t.Context(), token, path)
		if err != nil || user != wantUser || allowed != want {
			t.Errorf("%s %s: %q, %v, %v", token, path, user, allowed, err)
		}
		if n := s.requests() - before; n != asked {
			t.Errorf("%s %s: %d requests, want %d", token, path, n, asked)
		}
	}
	check("reader", "/metrics", "reader", true, 2)
	check("reader", "/metrics", "reader", true, 0)
	check("reader", "/debug", "reader", false, 2)
	check("other", "/metrics", "other", false, 2)
	check("nobody's", "/metrics", "", false, 1)
	check("nobody's", "/metrics", "", false, 0)

	// Verdicts end, and a flood of wrong tokens leaves a right one's alone.
	for i := range 2 * remembered {
		check(fmt.Sprint(i), "/metrics", "", false, 1)
	}
	if n := len(r.verdicts); n > remembered {
		t.Errorf("%d verdicts are remembered, want at most %d", n, remembered)
	}
	check("reader", "/metrics", "reader", true, 0)
	r.mu.Lock()
	for q, v := range r.verdicts {
		v.until = time.Now().Add(-time.Second)
		r.verdicts[q] = v
	}
	r.mu.Unlock()
	check("reader", "/metrics", "reader", true, 2)

	s.mu.Lock()
	s.away = true
	s.mu.Unlock()
	check("reader", "/metrics", "reader", true, 0)
	if _, allowed, err := r.MayGet(t.Context(), "new", "/metrics"); err == nil || allowed {
		t.Errorf("without an answer: %v, %v", allowed, err)
	}
}
