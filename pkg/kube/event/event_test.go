package event

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/kube/group"
	"poplin.dev/poplin/pkg/kube/kubetest"
)

const collection = "/api/v1/namespaces/default/events"

// recorder is one that does not run yet.
func recorder(t *testing.T, s *kubetest.Server, instance string) *Recorder {
	t.Helper()
	rc, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	known, core := runtime.NewScheme(), rest.Interface(nil)
	v1 := schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(known, v1)
	if err := group.Clients(rc, known, map[schema.GroupVersion]*rest.Interface{v1: &core}); err != nil {
		t.Fatal(err)
	}
	none := func() time.Duration { return 0 }
	return NewRecorder(Writer{Core: core, Component: "poplind", Instance: instance}, none, slog.New(slog.NewTextHandler(t.Output(), nil)))
}

func run(t *testing.T, r *Recorder) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { r.Run(ctx); close(done) }()
	t.Cleanup(func() { stop(); <-done })
}

var worker = cluster.NodeReference("worker-1", "uid-1")

func TestSaidOnce(t *testing.T) {
	s := kubetest.New(t)
	r := recorder(t, s, "worker-1")
	run(t, r)
	for range 100 {
		r.Event(worker, reason.PodCIDRMissing, "the Node has no range")
	}
	r.Event(worker, reason.ForeignFirewall, strings.Repeat("ä", 1000))
	s.Until("both are written", func() bool { return len(s.Requests("POST "+collection)) == 2 })
	e := s.Get(collection + "/" + Event{worker, reason.PodCIDRMissing, "the Node has no range"}.name())
	if e == nil {
		t.Fatal(s.Requests("POST"))
	}
	for _, want := range []string{
		"type:Warning", "reason:PodCIDRMissing", "message:the Node has no range", "count:1", "reportingComponent:poplind",
		"involvedObject:map[apiVersion:v1 kind:Node name:worker-1 uid:uid-1]", "source:map[component:poplind host:worker-1]",
	} {
		if text := fmt.Sprint(e); !strings.Contains(text, want) {
			t.Errorf("got %s\nwant %s in it", text, want)
		}
	}
	if m := s.Get(collection + "/" + Event{worker, reason.ForeignFirewall, strings.Repeat("ä", 1000)}.name())["message"].(string); len(m) > 1024 || strings.Contains(m, "\ufffd") {
		t.Errorf("a message of %d bytes: %q", len(m), m)
	}
}

// What was said long ago is said again: the Event counts, or comes back.
func TestSaidAgain(t *testing.T) {
	s := kubetest.New(t)
	r := recorder(t, s, "worker-1")
	run(t, r)
	e := Event{worker, reason.PodCIDRMissing, "text"}
	at := collection + "/" + e.name()
	say := func() { r.Event(e.About, e.Reason, e.Message) }
	later := func() {
		r.mu.Lock()
		r.said[e].last = time.Now().Add(-again)
		r.mu.Unlock()
	}
	say()
	s.Until("it is written", func() bool { return s.Get(at) != nil && r.count(e) == 1 })
	later()
	say()
	s.Until("it counts", func() bool { return s.Get(at)["count"] == 2.0 && r.count(e) == 2 })
	s.Delete(at)
	later()
	say()
	s.Until("it is back", func() bool { return s.Get(at)["count"] == 1.0 && r.count(e) == 1 })
}

// Many nodes that see the same write one Event, and none changes another's.
func TestManySayTheSame(t *testing.T) {
	s := kubetest.New(t)
	e := Event{cluster.NodeReference("worker-9", ""), reason.PeerRefused, "text"}
	tries := func() int { return len(s.Requests("POST " + collection)) }
	for i := range 3 {
		r := recorder(t, s, fmt.Sprint("worker-", i))
		run(t, r)
		before := tries()
		r.Event(e.About, e.Reason, e.Message)
		s.Until("it was tried", func() bool { return tries() == before+1 && (i > 0 || r.count(e) == 1) })
		if i == 0 {
			continue
		}
		r.mu.Lock()
		r.said[e].last = time.Now().Add(-again)
		r.mu.Unlock()
		r.Event(e.About, e.Reason, e.Message)
		s.Until("it was tried again", func() bool { return tries() == before+2 })
	}
	if p := s.Requests("PATCH"); len(p) > 0 {
		t.Errorf("another's Event was changed: %v", p)
	}
}

func TestBounds(t *testing.T) {
	s := kubetest.New(t)
	r := recorder(t, s, "worker-1") // does not run
	for i := range 3 * perObject {
		r.Event(worker, reason.PeerRefused, fmt.Sprint(i))
	}
	if n := len(r.said); n != perObject {
		t.Errorf("%d sentences about one object, want %d", n, perObject)
	}
	for i := range 2 * total {
		r.Event(cluster.NodeReference(fmt.Sprint(i), ""), reason.PeerRefused, "text")
	}
	if n := len(r.said); n != waiting {
		t.Errorf("%d sentences wait, want %d", n, waiting)
	}
	for _, s := range r.said {
		s.last = time.Now().Add(-forget)
	}
	<-r.queue
	r.Event(worker, reason.ChecksumFault, "text")
	if n := len(r.said); n != 1 {
		t.Errorf("%d sentences are remembered after their time, want 1", n)
	}
}

// An API server that is away gets the Event when it is back.
func TestServerAway(t *testing.T) {
	s := kubetest.New(t)
	address := s.Address()
	r := recorder(t, s, "worker-1")
	s.Stop()
	run(t, r)
	r.Event(worker, reason.PodCIDRMissing, "text")
	time.Sleep(100 * time.Millisecond)
	s.Start(address)
	s.Until("it is written", func() bool { return len(s.Requests("POST "+collection)) > 0 })
}
