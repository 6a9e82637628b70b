package ingress

import (
	"context"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/test/ingress/api"
)

// view is a reader that keeps what it is told.
type view struct {
	mu     sync.Mutex
	now    map[string]any
	synced bool
}

func (v *view) tell(kind, name string, value any) {
	v.mu.Lock()
	defer v.mu.Unlock()
	// A nil pointer says that there is none.
	if reflect.ValueOf(value).IsNil() {
		delete(v.now, kind+" "+name)
		v.now["no "+kind+" "+name] = true
		return
	}
	delete(v.now, "no "+kind+" "+name)
	v.now[kind+" "+name] = reflect.ValueOf(value).Elem().Interface()
}

func (v *view) get(what string) any {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.now[what]
}

func (v *view) reader() Reader {
	return Reader{
		Class:   func(n string, c *cluster.IngressClass) { v.tell("class", n, c) },
		Ingress: func(n cluster.ObjectName, i *cluster.Ingress) { v.tell("ingress", n.String(), i) },
		Service: func(n cluster.ObjectName, s *cluster.Service) { v.tell("service", n.String(), s) },
		Endpoints: func(n cluster.ObjectName, slice string, s *cluster.EndpointSlice) {
			v.tell("endpoints", n.String()+" "+slice, s)
		},
		Secret: func(n cluster.ObjectName, s *cluster.Secret) { v.tell("secret", n.String(), s) },
		Synced: func() { v.mu.Lock(); defer v.mu.Unlock(); v.synced = true },
	}
}

func start(t *testing.T, s *api.Server, namespaces ...string) (*Client, *view) {
	t.Helper()
	v := &view{now: map[string]any{}}
	c, err := New(Config{Kubeconfig: s.Kubeconfig(), Namespaces: namespaces, Component: "poplin-ingress", Log: slog.New(slog.NewTextHandler(t.Output(), nil))}, v.reader())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return c, v
}

const (
	ingressText = `{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"blue","name":"web","annotations":{"a":"b"},"creationTimestamp":"2026-01-02T03:04:05Z"},
"spec":{"ingressClassName":"poplin","defaultBackend":{"resource":{"apiGroup":"x","kind":"Bucket","name":"b"}},"tls":[{"hosts":["a.com"],"secretName":"crt"}],
"rules":[{"host":"a.com","http":{"paths":[{"path":"/x","pathType":"Prefix","backend":{"service":{"name":"web","port":{"number":80}}}},{"path":"/y","pathType":"Exact","backend":{"service":{"name":"web","port":{"name":"http"}}}}]}},{"host":"b.com"}]},
"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"},{"hostname":"lb.example.com"}]}}}`
	serviceText = `{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"blue","name":"web"},"spec":{"type":"NodePort","clusterIPs":["10.0.0.1"],"externalIPs":["192.0.2.9"],
"ports":[{"name":"http","port":80,"targetPort":"named","appProtocol":"kubernetes.io/h2c"},{"name":"dns","port":53,"protocol":"UDP"}]}}`
	sliceText = `{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":"blue","name":"web-1","labels":{"kubernetes.io/service-name":"%s"}},"addressType":"IPv4",
"ports":[{"name":"http","port":8080},{"name":"dns","port":53,"protocol":"UDP"}],
"endpoints":[{"addresses":["10.244.0.1"],"conditions":{"ready":true}},{"addresses":["10.244.0.2"],"conditions":{"ready":false,"serving":true,"terminating":true}},{"addresses":["10.244.0.3"]},{"addresses":["10.244.0.4"],"conditions":{"ready":false,"serving":false}}]}`
	classText  = `{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"poplin","annotations":{"ingressclass.kubernetes.io/is-default-class":"true"}},"spec":{"controller":"poplin.dev/ingress"}}`
	secretText = `{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":"blue","name":"crt"},"type":"kubernetes.io/tls","data":{"tls.crt":"%s"}}`
)

func TestReads(t *testing.T) {
	s := api.New(t)
	for _, text := range []string{ingressText, serviceText, fmt.Sprintf(sliceText, "web"), classText, fmt.Sprintf(secretText, "eA==")} {
		s.Put(text)
	}
	c, v := start(t, s)
	<-c.Ready()
	web := cluster.ObjectName{Namespace: "blue", Name: "web"}
	i := v.get("ingress blue/web").(cluster.Ingress)
	want := cluster.Ingress{
		ObjectName: web, UID: i.UID, Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Local(), Annotations: map[string]string{"a": "b"}, Class: "poplin",
		Default: &cluster.IngressBackend{Resource: "Bucket b"}, TLS: []cluster.IngressTLS{{Hosts: []string{"a.com"}, Secret: "crt"}},
		Rules: []cluster.IngressRule{{Host: "a.com", Paths: []cluster.IngressPath{
			{Path: "/x", Type: "Prefix", Backend: cluster.IngressBackend{Service: "web", Port: 80}},
			{Path: "/y", Type: "Exact", Backend: cluster.IngressBackend{Service: "web", PortName: "http"}},
		}}, {Host: "b.com"}},
		Status: []cluster.IngressAddress{{IP: "192.0.2.1"}, {Hostname: "lb.example.com"}},
	}
	if !reflect.DeepEqual(i, want) {
		t.Errorf("got  %+v\nwant %+v", i, want)
	}
	if got := v.get("service blue/web").(cluster.Service); !reflect.DeepEqual(got.Ports, []cluster.ServicePort{{Name: "http", Port: 80, AppProtocol: "kubernetes.io/h2c"}}) || got.Type != "NodePort" || got.ExternalIPs[0] != "192.0.2.9" {
		t.Errorf("%+v", got)
	}
	slice := v.get("endpoints blue/web web-1").(cluster.EndpointSlice)
	text := fmt.Sprint(slice.Ports, slice.Endpoints)
	if text != "[{http 8080}] [{10.244.0.1 true true} {10.244.0.2 false true} {10.244.0.3 true true} {10.244.0.4 false false}]" {
		t.Error(text)
	}
	if k := v.get("class poplin").(cluster.IngressClass); k.Controller != "poplin.dev/ingress" || !k.Default {
		t.Errorf("%+v", k)
	}
	if v.get("secret blue/crt") != nil || len(s.Requests("secrets")) != 0 {
		t.Error("a Secret was read that nobody wants")
	}
}

func TestFollows(t *testing.T) {
	s := api.New(t)
	c, v := start(t, s)
	<-c.Ready()
	s.Put(ingressText)
	s.Put(fmt.Sprintf(sliceText, "web"))
	s.Until("the slice is there", func() bool { return v.get("endpoints blue/web web-1") != nil })
	s.Put(fmt.Sprintf(sliceText, "other"))
	s.Until("the slice stands behind another Service", func() bool {
		return v.get("endpoints blue/web web-1") == nil && v.get("endpoints blue/other web-1") != nil
	})
	s.Delete("EndpointSlice blue/web-1")
	s.Until("the slice is gone", func() bool { return v.get("endpoints blue/other web-1") == nil })
	s.Delete("Ingress blue/web")
	s.Until("the Ingress is gone", func() bool { return v.get("ingress blue/web") == nil })
	// What is not understood counts as gone, and harms no other.
	s.Put(ingressText)
	s.Until("the Ingress is back", func() bool { return v.get("ingress blue/web") != nil })
	s.Put(strings.Replace(ingressText, `"number":80`, `"number":"eighty"`, 1))
	s.Until("the odd Ingress is passed over", func() bool { return v.get("ingress blue/web") == nil })
	s.Put(strings.Replace(ingressText, `"name":"web",`, `"name":"next",`, 1))
	s.Until("the next one is there", func() bool { return v.get("ingress blue/next") != nil })
}

func TestSecretsByName(t *testing.T) {
	s := api.New(t)
	c, v := start(t, s)
	<-c.Ready()
	crt := cluster.ObjectName{Namespace: "blue", Name: "crt"}
	c.WantSecrets([]cluster.ObjectName{crt})
	s.Until("it is known that there is none", func() bool { return v.get("no secret blue/crt") != nil })
	for _, data := range []string{"eA==", "eQ=="} {
		s.Put(fmt.Sprintf(secretText, data))
		s.Until("the Secret is "+data, func() bool {
			got, ok := v.get("secret blue/crt").(cluster.Secret)
			return ok && string(got.Data["tls.crt"]) == map[string]string{"eA==": "x", "eQ==": "y"}[data]
		})
	}
	s.Delete("Secret blue/crt")
	s.Until("the Secret is gone", func() bool { return v.get("secret blue/crt") == nil })
	for _, r := range s.Requests("secrets") {
		if !strings.Contains(r, "/namespaces/blue/secrets/crt") && !strings.Contains(r, "fieldSelector=metadata.name%3Dcrt") {
			t.Errorf("more than the one Secret was asked for: %s", r)
		}
	}
	c.WantSecrets(nil)
	s.Put(fmt.Sprintf(secretText, "eA=="))
	s.Put(ingressText)
	s.Until("later changes were seen", func() bool { return v.get("ingress blue/web") != nil })
	if v.get("secret blue/crt") != nil {
		t.Error("told of a Secret that is not wanted any more")
	}
}

func TestNamespaces(t *testing.T) {
	s := api.New(t)
	s.Put(ingressText)
	s.Put(strings.Replace(ingressText, `"namespace":"blue"`, `"namespace":"green"`, 1))
	c, v := start(t, s, "green")
	<-c.Ready()
	if v.get("ingress green/web") == nil || v.get("ingress blue/web") != nil || len(s.Requests("/networking.k8s.io/v1/ingresses?")) != 0 {
		t.Errorf("%v", s.Requests(""))
	}
}

func TestWrites(t *testing.T) {
	s := api.New(t)
	s.Put(ingressText)
	c, v := start(t, s)
	<-c.Ready()
	i := v.get("ingress blue/web").(cluster.Ingress)
	if err := c.PublishStatus(t.Context(), &i, i.Status); err != nil || len(s.Requests("PATCH")) != 0 {
		t.Errorf("wrote what stands there: %v", err)
	}
	for _, list := range [][]cluster.IngressAddress{{{IP: "192.0.2.5"}}, nil} {
		if err := c.PublishStatus(t.Context(), &i, list); err != nil {
			t.Fatal(err)
		}
		s.Until("the status is read back", func() bool {
			return reflect.DeepEqual(v.get("ingress blue/web").(cluster.Ingress).Status, list)
		})
		i = v.get("ingress blue/web").(cluster.Ingress)
	}
	for range 2 {
		if err := c.Event(t.Context(), &i, reason.Conflict, strings.Repeat("x", 2000)); err != nil {
			t.Fatal(err)
		}
	}
	events := s.All("Event")
	if len(events) != 1 || len(events[0]["message"].(string)) != 1024 || events[0]["involvedObject"].(api.Object)["uid"] != i.UID {
		t.Errorf("%v", events)
	}
	gone := i
	gone.Name = "gone"
	if err := c.PublishStatus(t.Context(), &gone, []cluster.IngressAddress{{IP: "192.0.2.5"}}); err != nil {
		t.Errorf("an Ingress that is gone: %v", err)
	}
}
