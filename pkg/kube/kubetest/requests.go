package kubetest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// split tells a collection from an item: a collection's path has an object
// below it, or ends with the plural that every path here has.
func (s *Server) split(at string) (collection, item string) {
	for _, plural := range []string{"nodes", "nodenetworks", "endpointslices", "services", "servicecidrs", "events"} {
		if before, after, ok := strings.Cut(at, "/"+plural); ok {
			return before + "/" + plural, strings.TrimPrefix(after, "/")
		}
	}
	return at, ""
}

// kinds are the list kinds of the collections.
var kinds = map[string][2]string{
	"pods":            {"v1", "Pod"},
	"namespaces":      {"v1", "Namespace"},
	"networkpolicies": {"networking.k8s.io/v1", "NetworkPolicy"},
	"nodes":           {"v1", "Node"},
	"nodenetworks":    {"poplin.dev/v1alpha1", "NodeNetwork"},
	"endpointslices":  {"discovery.k8s.io/v1", "EndpointSlice"},
	"services":        {"v1", "Service"},
	"servicecidrs":    {"networking.k8s.io/v1", "ServiceCIDR"},
	"events":          {"v1", "Event"},

	"customresourcedefinitions": {"apiextensions.k8s.io/v1", "CustomResourceDefinition"},
	"clusternetworkpolicies":    {"policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy"},
}

// in reports whether an object's path is in a collection, which may be that of
// all namespaces.
func in(collection, at string) bool {
	if path.Dir(at) == collection {
		return true
	}
	before, after, ok := strings.Cut(path.Dir(at), "/namespaces/")
	_, plural, _ := strings.Cut(after, "/")
	return ok && before+"/"+plural == collection
}

// selected knows a field by name, one that has to differ, and labels that are
// given or have to be absent.
func selected(r *http.Request, o Object) bool {
	if name, ok := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name="); ok {
		return metadata(o)["name"] == name
	}
	for part := range strings.SplitSeq(r.URL.Query().Get("fieldSelector"), ",") {
		field, value, _ := strings.Cut(part, "!=")
		parent, child, _ := strings.Cut(field, ".")
		if at, _ := o[parent].(Object); child != "" && at[child] == value {
			return false
		}
	}
	labels, _ := metadata(o)["labels"].(Object)
	selector := r.URL.Query().Get("labelSelector")
	if name, ok := strings.CutPrefix(selector, "!"); ok {
		return labels[name] == nil
	}
	name, value, ok := strings.Cut(selector, "=")
	return !ok || labels == nil || labels[name] == value
}

func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	items := []Object{}
	for _, at := range slices.Sorted(maps.Keys(s.objects)) {
		if in(r.URL.Path, at) && selected(r, s.objects[at]) {
			items = append(items, s.objects[at])
		}
	}
	kind := kinds[path.Base(r.URL.Path)]
	list := Object{
		"apiVersion": kind[0], "kind": kind[1] + "List",
		"metadata": Object{"resourceVersion": strconv.Itoa(s.version)}, "items": items,
	}
	if wantsProtobuf(r) {
		w.Header().Set("Content-Type", protobufType)
		_, _ = w.Write(s.toProtobuf(list))
		return
	}
	answer(w, http.StatusOK, list)
}

func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	from, _ := strconv.Atoi(query.Get("resourceVersion"))
	s.mu.Lock()
	streams, oldest := s.streams, s.oldest
	s.mu.Unlock()
	initial := query.Get("sendInitialEvents") == "true"
	switch {
	case initial && !streams:
		fail(w, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is forbidden")
		return
	case !initial && from < oldest:
		fail(w, http.StatusGone, "Expired", "too old resource version")
		return
	}
	contentType := "application/json"
	if wantsProtobuf(r) {
		contentType = protobufType + ";stream=watch"
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(http.StatusOK)
	send := func(kind string, o Object) {
		if wantsProtobuf(r) {
			_, _ = w.Write(s.frame(kind, o))
		} else {
			_ = json.NewEncoder(w).Encode(Object{"type": kind, "object": o})
		}
		w.(http.Flusher).Flush()
	}
	if initial {
		from = s.sendInitial(r, send)
	}
	w.(http.Flusher).Flush()
	for {
		s.mu.Lock()
		changed, events := s.changed, slices.Clone(s.events)
		s.mu.Unlock()
		for _, e := range events {
			if e.version > from && in(r.URL.Path, e.path) {
				kind := e.kind
				if !selected(r, e.object) {
					kind = "DELETED" // it may have been selected before
				}
				send(kind, e.object)
			}
			from = max(from, e.version)
		}
		select {
		case <-r.Context().Done():
			return
		case <-changed:
		}
	}
}

func (s *Server) sendInitial(r *http.Request, send func(kind string, o Object)) (version int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for at, o := range s.objects {
		if in(r.URL.Path, at) && selected(r, o) {
			send("ADDED", o)
		}
	}
	kind := kinds[path.Base(r.URL.Path)]
	send("BOOKMARK", Object{"apiVersion": kind[0], "kind": kind[1], "metadata": Object{
		"resourceVersion": strconv.Itoa(s.version),
		"annotations":     Object{"k8s.io/initial-events-end": "true"},
	}})
	return s.version
}

// one serves a request for one object.
func (s *Server) one(w http.ResponseWriter, r *http.Request) {
	var body Object
	if b, err := io.ReadAll(r.Body); err != nil || len(b) > 0 && json.Unmarshal(b, &body) != nil {
		fail(w, http.StatusBadRequest, "BadRequest", "unreadable body")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	collection, item := s.split(r.URL.Path)
	if r.Method == http.MethodPost {
		item = metadata(body)["name"].(string)
	}
	item, status := strings.CutSuffix(item, "/status")
	at := path.Join(collection, item)
	old, found := s.objects[at]
	switch {
	case !found && r.Method != http.MethodPost:
		fail(w, http.StatusNotFound, "NotFound", at+" not found")
	case found && r.Method == http.MethodPost:
		fail(w, http.StatusConflict, "AlreadyExists", at+" already exists")
	case r.Method == http.MethodGet:
		answer(w, http.StatusOK, old)
	case r.Method == http.MethodPost:
		answer(w, http.StatusCreated, s.put(at, body))
	case r.Method == http.MethodPut && metadata(body)["resourceVersion"] != metadata(old)["resourceVersion"]:
		fail(w, http.StatusConflict, "Conflict", "the object has been modified")
	case r.Method == http.MethodPut:
		answer(w, http.StatusOK, s.put(at, body))
	case r.Method == http.MethodPatch && status:
		answer(w, http.StatusOK, s.put(at, withConditions(old, body)))
	case r.Method == http.MethodPatch && r.Header.Get("Content-Type") == "application/merge-patch+json":
		merged := maps.Clone(old)
		maps.Copy(merged, body) // fields within fields are replaced
		answer(w, http.StatusOK, s.put(at, merged))
	default:
		fail(w, http.StatusMethodNotAllowed, "MethodNotAllowed", fmt.Sprint(r.Method, " is not served"))
	}
}

// withConditions is the strategic merge of status.conditions, by type.
func withConditions(o, patch Object) Object {
	o = maps.Clone(o)
	status, _ := o["status"].(Object)
	status = maps.Clone(status)
	conditions, _ := status["conditions"].([]any)
	conditions = slices.Clone(conditions)
	for _, c := range patch["status"].(Object)["conditions"].([]any) {
		same := func(o any) bool { return o.(Object)["type"] == c.(Object)["type"] }
		conditions = append(slices.DeleteFunc(conditions, same), c)
	}
	status["conditions"] = conditions
	o["status"] = status
	return o
}

func answer(w http.ResponseWriter, code int, o Object) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(o)
}

func fail(w http.ResponseWriter, code int, reason, message string) {
	answer(w, code, Object{
		"apiVersion": "v1", "kind": "Status", "status": "Failure",
		"code": code, "reason": reason, "message": message, "metadata": Object{},
	})
}

// Until polls what until it is true.
func (s *Server) Until(what string, true func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("not within 20 s: %s", what)
		}
	}
}
