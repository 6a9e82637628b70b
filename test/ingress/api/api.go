// Package api is an API server in memory, for tests of what watches many
// namespaces. Inputs are objects as JSON-like values; outputs are lists,
// watches, single objects, merge patches and creations over HTTP on loopback,
// and a record of requests. It refuses initial events over a watch, so that
// clients list, and validates nothing.
package api

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Object is a Kubernetes object.
type Object = map[string]any

// T is what the server needs of a test.
type T interface {
	Helper()
	Fatal(...any)
	Fatalf(string, ...any)
	Errorf(string, ...any)
	Cleanup(func())
	TempDir() string
}

// Server is the API server.
type Server struct {
	t      T
	server *httptest.Server

	mu       sync.Mutex
	objects  map[key]Object
	events   []event
	version  int
	changed  chan struct{}
	requests []string
	away     bool
}

// key is where an object stands: /api/v1, or /apis/GROUP/VERSION.
type key struct{ group, plural, namespace, name string }

type event struct {
	version int
	kind    string // ADDED, MODIFIED, DELETED
	at      key
	object  Object
}

var plurals = map[string]string{
	"Service": "services", "Secret": "secrets", "Event": "events", "EndpointSlice": "endpointslices", "Ingress": "ingresses", "IngressClass": "ingressclasses",
}

// New starts a server that ends with the test.
func New(t T) *Server {
	s := &Server{t: t, objects: map[key]Object{}, version: 1, changed: make(chan struct{})}
	s.server = httptest.NewServer(s)
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// Kubeconfig is the path of a file that leads here.
func (s *Server) Kubeconfig() string {
	file := filepath.Join(s.t.TempDir(), "kubeconfig")
	text := fmt.Sprintf(`{"apiVersion":"v1","kind":"Config","current-context":"c","clusters":[{"name":"c","cluster":{"server":%q}}],
"contexts":[{"name":"c","context":{"cluster":"c","user":"c"}}],"users":[{"name":"c","user":{}}]}`, s.server.URL)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
	return file
}

func keyOf(o Object) key {
	group := "/apis/" + o["apiVersion"].(string)
	if o["apiVersion"] == "v1" {
		group = "/api/v1"
	}
	m := metadata(o)
	namespace, _ := m["namespace"].(string)
	name, _ := m["name"].(string)
	return key{group, plurals[o["kind"].(string)], namespace, name}
}

func metadata(o Object) Object {
	m, _ := o["metadata"].(Object)
	return m
}

// Put stores an object, given as JSON.
func (s *Server) Put(text string) {
	s.t.Helper()
	var o Object
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		s.t.Fatalf("%v in %s", err, text)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(keyOf(o), o)
}

func (s *Server) put(at key, o Object) {
	kind := "ADDED"
	m := maps.Clone(metadata(o))
	if old, found := s.objects[at]; found {
		kind = "MODIFIED"
		m["uid"], m["creationTimestamp"] = metadata(old)["uid"], metadata(old)["creationTimestamp"]
	} else {
		m["uid"] = fmt.Sprintf("%s-%d", at.name, s.version)
		if m["creationTimestamp"] == nil {
			m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
		}
	}
	s.version++
	m["resourceVersion"] = strconv.Itoa(s.version)
	o = maps.Clone(o)
	o["metadata"] = m
	s.objects[at] = o
	s.record(kind, at, o)
}

// Delete removes an object, given like "Ingress default/web".
func (s *Server) Delete(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, o := range s.objects {
		if o["kind"].(string)+" "+at.namespace+"/"+at.name == what {
			delete(s.objects, at)
			s.version++
			s.record("DELETED", at, o)
			return
		}
	}
	s.t.Errorf("delete %s: there is none", what)
}

func (s *Server) record(kind string, at key, o Object) {
	s.events = append(s.events, event{s.version, kind, at, o})
	close(s.changed)
	s.changed = make(chan struct{})
}

// Get is an object, given like "Ingress default/web", as JSON; empty if there
// is none.
func (s *Server) Get(what string) string {
	for _, o := range s.All(what[:strings.IndexByte(what, ' ')]) {
		if m := metadata(o); fmt.Sprintf("%s %v/%v", o["kind"], m["namespace"], m["name"]) == what {
			b, _ := json.Marshal(o)
			return string(b)
		}
	}
	return ""
}

// All are the objects of a kind.
func (s *Server) All(kind string) []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []Object
	for _, o := range s.objects {
		if o["kind"] == kind {
			list = append(list, o)
		}
	}
	return list
}

// Requests are those so far that contain a text.
func (s *Server) Requests(text string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(s.requests), func(r string) bool { return !strings.Contains(r, text) })
}

// Away ends every connection and answers nothing but 503, until it is back.
func (s *Server) Away(away bool) {
	s.mu.Lock()
	s.away = away
	s.mu.Unlock()
	s.server.CloseClientConnections()
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	away := s.away
	s.mu.Unlock()
	if away {
		fail(w, http.StatusServiceUnavailable, "ServiceUnavailable")
		return
	}
	at := parse(r.URL.Path)
	switch {
	case r.URL.Query().Get("sendInitialEvents") != "":
		fail(w, http.StatusUnprocessableEntity, "Invalid")
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r, at)
	case r.Method == http.MethodGet && at.name == "":
		s.list(w, r, at)
	default:
		s.one(w, r, at)
	}
}

// parse reads /GROUP.../[namespaces/NS/]PLURAL[/NAME[/status]].
func parse(path string) key {
	parts := strings.Split(strings.TrimPrefix(path, "/"), "/")
	n := 3
	if parts[0] == "api" {
		n = 2
	}
	at := key{group: "/" + strings.Join(parts[:n], "/")}
	rest := parts[n:]
	if len(rest) > 2 && rest[0] == "namespaces" {
		at.namespace, rest = rest[1], rest[2:]
	}
	at.plural = rest[0]
	if len(rest) > 1 {
		at.name = rest[1]
	}
	return at
}

func (at key) selects(o key, r *http.Request) bool {
	name, one := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
	return o.group == at.group && o.plural == at.plural && (at.namespace == "" || o.namespace == at.namespace) && (!one || o.name == name)
}

func (s *Server) list(w http.ResponseWriter, r *http.Request, at key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []Object{}
	for o := range s.objects {
		if at.selects(o, r) {
			items = append(items, s.objects[o])
		}
	}
	kind := ""
	for k, plural := range plurals {
		if plural == at.plural {
			kind = k
		}
	}
	answer(w, http.StatusOK, Object{
		"apiVersion": strings.TrimPrefix(strings.TrimPrefix(at.group, "/apis/"), "/api/"), "kind": kind + "List",
		"metadata": Object{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	})
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request, at key) {
	from, _ := strconv.Atoi(r.URL.Query().Get("resourceVersion"))
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusOK)
	w.(http.Flusher).Flush()
	for {
		s.mu.Lock()
		changed, events := s.changed, s.events
		s.mu.Unlock()
		start, _ := slices.BinarySearchFunc(events, from+1, func(e event, v int) int { return e.version - v })
		for _, e := range events[start:] {
			if at.selects(e.at, r) {
				_ = json.NewEncoder(w).Encode(Object{"type": e.kind, "object": e.object})
				w.(http.Flusher).Flush()
			}
			from = e.version
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func (s *Server) one(w http.ResponseWriter, r *http.Request, at key) {
	var body Object
	if b, err := io.ReadAll(r.Body); err != nil || len(b) > 0 && json.Unmarshal(b, &body) != nil {
		fail(w, http.StatusBadRequest, "BadRequest")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPost {
		at = keyOf(body)
	}
	old, found := s.objects[at]
	switch {
	case !found && r.Method != http.MethodPost:
		fail(w, http.StatusNotFound, "NotFound")
		return
	case found && r.Method == http.MethodPost:
		fail(w, http.StatusConflict, "AlreadyExists")
		return
	case r.Method == http.MethodPost:
		s.put(at, body)
	case r.Method == http.MethodPatch:
		s.put(at, merge(old, body))
	}
	answer(w, http.StatusOK, s.objects[at])
}

// merge is RFC 7396.
func merge(o, patch Object) Object {
	o = maps.Clone(o)
	for k, v := range patch {
		inner, isObject := v.(Object)
		before, was := o[k].(Object)
		switch {
		case v == nil:
			delete(o, k)
		case isObject && was:
			o[k] = merge(before, inner)
		default:
			o[k] = v
		}
	}
	return o
}

func answer(w http.ResponseWriter, code int, o Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

func fail(w http.ResponseWriter, code int, reason string) {
	answer(w, code, Object{"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "metadata": Object{}})
}

// Until polls until what is true.
func (s *Server) Until(what string, true func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !true(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			s.t.Fatalf("not within 20 s: %s", what)
		}
	}
}
