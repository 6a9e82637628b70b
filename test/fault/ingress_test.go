//go:build e2e

package fault

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/door"
	web "poplin.dev/poplin/test/ingress/traffic"
)

// tenants are hosts with a certificate each, and the Services behind them.
var tenants = map[string]string{"web.example.com": "traffic-web", "socket.example.com": "traffic-stream", "grpc.example.com": "traffic-grpc"}

// edge is a cluster's way in, with everything that the test below changes.
type edge struct {
	*testing.T
	cluster *cluster.Cluster
	door    *door.Door
	certs   []map[string]*certificate.Certificate // by host, one set after the other
	all     []*certificate.Certificate
}

func newEdge(t *testing.T, rotations int) *edge {
	t.Helper()
	e := &edge{T: t, cluster: shared(t)}
	for range rotations + 1 {
		set := map[string]*certificate.Certificate{}
		for host := range tenants {
			c, err := certificate.New(host)
			e.ok(err)
			set[host], e.all = c, append(e.all, c)
		}
		e.certs = append(e.certs, set)
	}
	var err error
	e.door, err = door.Install(t.Context(), e.cluster)
	e.ok(err)
	e.ok(door.LoadBackend(t.Context(), e.cluster, t.TempDir()))
	root, err := cluster.ProjectRoot()
	e.ok(err)
	manifest := filepath.Join(root, "test/testdata/traffic.yaml")
	run(t, e.cluster, "apply", "-f", manifest)
	t.Cleanup(func() {
		ctx := context.WithoutCancel(t.Context())
		_, _ = e.cluster.Kubectl(ctx, "delete", "--ignore-not-found", "--wait=false", "-f", manifest)
		_, _ = e.cluster.Kubectl(ctx, "delete", "--ignore-not-found", "--all", "ingress")
	})
	for _, name := range []string{"traffic-web", "traffic-stream"} {
		run(t, e.cluster, "rollout", "status", "deployment/"+name, "--timeout=90s")
	}
	for host, service := range tenants {
		// Over plain HTTP too: a WebSocket of the test comes that way.
		tls := fmt.Sprintf(`"ingressClassName":"poplin","tls":[{"hosts":[%q],"secretName":%q}],`, host, host)
		e.ok(e.door.Apply(t.Context(), door.Ingress(host, service, tls, "ssl-redirect: false")))
	}
	e.rotate(0)
	return e
}

func (e *edge) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// rotate replaces every certificate and waits until new connections get the
// new ones.
func (e *edge) rotate(set int) {
	e.Helper()
	begin := time.Now()
	for host, c := range e.certs[set] {
		e.ok(e.door.Apply(e.Context(), c.Secret("default", host)))
	}
	for host, c := range e.certs[set] {
		await.Success(e, 20*time.Second, func() error {
			if got := web.Served(e.door.Dial, certificate.Roots(e.all...), host); got != c.Fingerprint() {
				return fmt.Errorf("%s is served with %s, want %s", host, got, c.Fingerprint())
			}
			return nil
		})
	}
	e.Logf("every certificate is replaced after %v", time.Since(begin))
}

// streams opens a WebSocket and a gRPC call through a node.
func (e *edge) streams(node string) []*web.Stream {
	e.Helper()
	var socket, call *web.Stream
	// The replica of this node may be the last to know of the endpoints.
	await.Success(e, 20*time.Second, func() (err error) {
		socket, err = web.WebSocket(e.Context(), e.door.Via(node), "socket.example.com")
		return err
	})
	await.Success(e, 20*time.Second, func() (err error) {
		call, err = web.GRPC(e.Context(), e.door.Via(node), certificate.Roots(e.all...), "grpc.example.com")
		return err
	})
	e.Cleanup(func() { socket.Close(); call.Close() })
	return []*web.Stream{socket, call}
}

// Under a steady load nothing fails, and no stream breaks but those of a
// replica that ends, which get their time: Ingresses change, certificates are
// replaced, the back end is rolled, and one of two replicas is told to end.
func TestNothingFailsAtTheEdge(t *testing.T) {
	changes, rotations := 100, 3
	if os.Getenv("POPLIN_SOAK") == "1" {
		changes, rotations = 1000, 10
	}
	e := newEdge(t, rotations)
	replicas, err := e.door.Replicas(t.Context())
	e.ok(err)
	if len(replicas) != 2 || replicas[0].Node == replicas[1].Node {
		t.Fatalf("the replicas are %v, want two, spread over nodes", replicas)
	}
	leaving, staying := e.streams(replicas[0].Node), e.streams(replicas[1].Node)
	alive := func(when string, streams ...*web.Stream) {
		t.Helper()
		for _, s := range streams {
			if err := s.Alive(); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
	}
	const host = "web.example.com"
	load := web.Start(e.door.Dial, certificate.Roots(e.all...),
		web.Kind{URL: "http://" + host + "/"}, web.Kind{URL: "https://" + host + "/"}, web.Kind{URL: "https://" + host + "/", HTTP2: true},
		web.Kind{URL: "http://" + host + "/"}, web.Kind{URL: "https://" + host + "/"}, web.Kind{URL: "https://" + host + "/", HTTP2: true})

	var took []time.Duration
	probe := web.Client(e.door.Via(replicas[1].Node), nil, false)
	for n := range changes {
		added := fmt.Sprintf("h%d.example.com", n)
		begin := time.Now()
		e.ok(e.door.Apply(t.Context(), door.Ingress(added, "traffic-web", "")))
		await.Success(t, 20*time.Second, func() error { return answers(probe, "http://"+added+"/") })
		took = append(took, time.Since(begin))
		if every := changes / rotations; n%every == every/2 && n/every < rotations {
			e.rotate(n/every + 1)
			alive(fmt.Sprint("after change ", n), slices.Concat(leaving, staying)...)
		}
	}
	slices.Sort(took)
	t.Logf("an Ingress is live after %v, p99 %v", took[len(took)/2], took[len(took)*99/100])

	run(t, e.cluster, "rollout", "restart", "deployment/traffic-web")
	run(t, e.cluster, "rollout", "status", "deployment/traffic-web", "--timeout=120s")
	alive("after the rolling update", slices.Concat(leaving, staying)...)

	// Its successor starts elsewhere, so that the node says what the replica does.
	run(t, e.cluster, "cordon", replicas[0].Node)
	t.Cleanup(func() {
		_, _ = e.cluster.Kubectl(context.WithoutCancel(t.Context()), "uncordon", replicas[0].Node)
	})
	run(t, e.cluster, "-n", door.Namespace, "delete", "pod", replicas[0].Pod, "--wait=false")
	await.Success(t, 20*time.Second, func() error {
		// The load balancer's view; the replica goes on until it is past.
		if e.door.Serves(replicas[0].Node) {
			return fmt.Errorf("%s still says that it has a replica", replicas[0].Node)
		}
		return nil
	})
	alive("while a replica drains", slices.Concat(leaving, staying)...)
	await.Success(t, 20*time.Second, func() error {
		c := web.Client(e.door.Via(replicas[0].Node), nil, false)
		c.Timeout = 2 * time.Second // without a replica, a node drops what comes
		defer c.CloseIdleConnections()
		if answers(c, "http://"+host+"/") == nil {
			return fmt.Errorf("the replica that ends takes connections still")
		}
		return nil
	})
	alive("when a replica takes no more connections", slices.Concat(leaving, staying)...)
	for _, s := range leaving {
		s.Close()
	}
	run(t, e.cluster, "-n", door.Namespace, "wait", "--for=delete", "pod/"+replicas[0].Pod, "--timeout=60s")
	run(t, e.cluster, "-n", door.Namespace, "rollout", "status", "deployment/"+door.Name, "--timeout=60s")
	alive("after a replica has left", staying...)
	if err := load.Stop(); err != nil {
		t.Error(err)
	}
	t.Logf("%d requests", load.Sent())
}

// answers wants a back end's answer.
func answers(c *http.Client, url string) error {
	if got := web.Get(c, url); !strings.HasPrefix(got, "200 traffic-web-") {
		return fmt.Errorf("%s answered %q", url, got)
	}
	return nil
}
