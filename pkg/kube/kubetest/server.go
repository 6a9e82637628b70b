// Package kubetest is an API server in memory for tests of what watches and
// writes. Inputs are objects as JSON-like values and faults to play; outputs
// are an HTTPS server on loopback that lists, watches, creates, updates and
// patches, and a record of the requests it had. It refuses requests without
// its token, and knows nothing of kinds: what it is given, it serves.
package kubetest

import (
	"encoding/json"
	"log"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Object is a Kubernetes object.
type Object = map[string]any

// Server is the API server.
type Server struct {
	t      testing.TB
	files  files
	server *httptest.Server

	mu       sync.Mutex
	objects  map[string]Object // by path, such as /api/v1/nodes/worker-1
	events   []event
	version  int
	oldest   int           // watches from before get 410 Gone
	changed  chan struct{} // closed and replaced by every change
	streams  bool          // initial events over a watch are served
	forbid   string        // the path of a collection that nobody may read
	requests []string
}

type event struct {
	version int
	kind    string // ADDED, MODIFIED, DELETED
	path    string
	object  Object
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{
		t: t, files: newFiles(t), objects: map[string]Object{},
		version: 1, changed: make(chan struct{}), streams: true,
	}
	s.Start("127.0.0.1:0")
	t.Cleanup(s.Stop)
	return s
}

// Credentials is a directory as Kubernetes mounts it into a pod.
func (s *Server) Credentials() string { return s.files.dir }

// Kubeconfig is the path of a file that leads here.
func (s *Server) Kubeconfig() string { return s.files.kubeconfig(s.t, s.URL()) }

// Address is the server's host:port.
func (s *Server) Address() string { return s.server.Listener.Addr().String() }

// URL is what apiServer.endpoints takes.
func (s *Server) URL() string { return "https://" + s.Address() }

// Start listens on address, also after a Stop.
func (s *Server) Start(address string) {
	ln, err := net.Listen("tcp", address)
	if err != nil {
		s.t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(s)
	_ = srv.Listener.Close()
	srv.Listener, srv.TLS, srv.EnableHTTP2 = ln, s.files.tls(), true
	srv.Config.ErrorLog = log.New(s.t.Output(), "", 0)
	srv.StartTLS()
	s.server = srv
}

// Stop closes every connection; what is stored stays.
func (s *Server) Stop() {
	s.server.CloseClientConnections()
	s.server.Close()
}

// NoStreams makes the server refuse initial events over a watch, like those
// before Kubernetes 1.32: clients list.
func (s *Server) NoStreams() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.streams = false
}

// Forbid refuses requests for a collection.
func (s *Server) Forbid(collection string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.forbid = collection
}

// Expire forgets the past: all watches end, and one that starts from an
// earlier version gets 410 Gone.
func (s *Server) Expire() {
	s.mu.Lock()
	s.version++
	s.events, s.oldest = nil, s.version
	s.mu.Unlock()
	s.server.CloseClientConnections()
}

// Put stores an object below its collection, such as /api/v1/nodes.
func (s *Server) Put(collection string, o Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(path.Join(collection, metadata(o)["name"].(string)), o)
}

// Delete removes an object by its path.
func (s *Server) Delete(at string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o, ok := s.objects[at]; ok {
		delete(s.objects, at)
		s.record("DELETED", at, o)
	}
}

// Get is the object at a path, or nil.
func (s *Server) Get(at string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.objects[at]
}

// List is the objects below a collection.
func (s *Server) List(collection string) (list []Object) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, o := range s.objects {
		if path.Dir(at) == collection {
			list = append(list, o)
		}
	}
	return list
}

// Requests are the requests so far whose text begins with prefix, such as
// "PUT /apis/poplin.dev".
func (s *Server) Requests(prefix string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []string
	for _, r := range s.requests {
		if strings.HasPrefix(r, prefix) {
			list = append(list, r)
		}
	}
	return list
}

func metadata(o Object) Object {
	m, ok := o["metadata"].(Object)
	if !ok {
		m = Object{}
		o["metadata"] = m
	}
	return m
}

// put stores a copy with a new version. The caller holds the lock.
func (s *Server) put(at string, o Object) Object {
	b, err := json.Marshal(o)
	if err != nil {
		s.t.Fatal(err)
	}
	o = Object{}
	if err := json.Unmarshal(b, &o); err != nil {
		s.t.Fatal(err)
	}
	kind := "ADDED"
	m := metadata(o)
	if old, ok := s.objects[at]; ok {
		kind = "MODIFIED"
		m["creationTimestamp"] = metadata(old)["creationTimestamp"]
	} else if m["creationTimestamp"] == nil {
		m["creationTimestamp"] = time.Now().UTC().Format(time.RFC3339)
	}
	s.objects[at] = o
	s.record(kind, at, o)
	return o
}

func (s *Server) record(kind, at string, o Object) {
	s.version++
	o = maps.Clone(o)
	o["metadata"] = maps.Clone(metadata(o))
	metadata(o)["resourceVersion"] = strconv.Itoa(s.version)
	if kind != "DELETED" {
		s.objects[at] = o
	}
	s.events = append(s.events, event{s.version, kind, at, o})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.RequestURI())
	forbidden := r.URL.Path == s.forbid
	s.mu.Unlock()
	switch _, item := s.split(r.URL.Path); {
	case r.Header.Get("Authorization") != "Bearer "+token:
		fail(w, http.StatusUnauthorized, "Unauthorized", "no token, or another")
	case forbidden:
		fail(w, http.StatusForbidden, "Forbidden", r.URL.Path+" is forbidden")
	case r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	case r.Method == http.MethodGet && item == "":
		s.list(w, r)
	default:
		s.one(w, r)
	}
}
