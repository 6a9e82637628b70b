package ingress

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
	"poplin.dev/poplin/test/ingress/traffic"
)

// tenants are hosts with a certificate each.
var tenants = []string{"a.com", "b.com", "c.com"}

// rotations are certificates for all tenants, one set after the other.
func rotations(t *testing.T, n int) (sets []map[string]*certificate.Certificate, all []*certificate.Certificate) {
	t.Helper()
	for range n {
		set := map[string]*certificate.Certificate{}
		for _, host := range tenants {
			set[host] = certificateFor(t, host)
			all = append(all, set[host])
		}
		sets = append(sets, set)
	}
	return sets, all
}

// withTLS is an Ingress of a host with its own Secret.
func withTLS(host, service string) string {
	return ingressOf(host, host, service, fmt.Sprintf(`,"tls":[{"hosts":[%q],"secretName":%q}]`, host, host))
}

// TestNothingFails changes everything under a steady load and open streams.
func TestNothingFails(t *testing.T) {
	s := api.New(t)
	sets, all := rotations(t, 4)
	put := func(set map[string]*certificate.Certificate) {
		for host, c := range set {
			s.Put(c.Secret("default", host))
		}
	}
	put(sets[0])
	for _, o := range []string{
		class, service("default", "web", "}}"), slice("default", "web", 11, 12), service("default", "stream", "}}"), slice("default", "stream", 14),
		strings.Replace(service("default", "grpc", "}}"), `"port":80`, `"port":80,"appProtocol":"kubernetes.io/h2c"`, 1), slice("default", "grpc", 14),
		withTLS("a.com", "web"), withTLS("b.com", "stream"), withTLS("c.com", "grpc"),
	} {
		s.Put(o)
	}
	back := traffic.Backend("web").ServeHTTP
	stopOld := pod(t, 12, back)
	for _, n := range []int{11, 13, 14} {
		pod(t, n, back)
	}
	// The one that leaves takes connections for as long as it does by default,
	// until this test has seen that it is not ready, however busy the machine is.
	one, two := run(t, s, 101, func(c *daemon.Config) { c.Proxy.Withdraw = 5 * time.Second }), run(t, s, 102, nil)
	s.Until("both are ready", func() bool { return one.ready() && two.ready() })

	// Replica one leaves in the end. Once it says that it is not ready, new
	// connections go to the other, as the Service would send them.
	withdrawn := make(chan struct{})
	viaTwo := to(func() []string { return []string{two.address} })
	viaOne := to(func() []string {
		select {
		case <-withdrawn:
			return []string{two.address}
		default:
			return []string{one.address}
		}
	})
	roots := certificate.Roots(all...)
	kinds := []traffic.Kind{{URL: "http://a.com/"}, {URL: "https://a.com/"}, {URL: "https://a.com/", HTTP2: true}}
	loads := []*traffic.Load{traffic.Start(viaOne, roots, kinds...), traffic.Start(viaTwo, roots, kinds...)}
	open := func(dial traffic.Dial) []*traffic.Stream {
		socket, err := traffic.WebSocket(t.Context(), dial, "b.com")
		if err != nil {
			t.Fatal(err)
		}
		call, err := traffic.GRPC(t.Context(), dial, roots, "c.com")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { socket.Close(); call.Close() })
		return []*traffic.Stream{socket, call}
	}
	leaving, staying := open(viaOne), open(viaTwo)
	alive := func(when string) {
		t.Helper()
		for _, stream := range slices.Concat(leaving, staying) {
			if err := stream.Alive(); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
	}

	var slowest []time.Duration
	probe := client(nil, false, one.address)
	live := func(host string) func() bool {
		return func() bool { return get(probe, "http://"+host+"/") == "200 web\n" }
	}
	changes := count(100, 1000)
	for n := range changes {
		host := fmt.Sprintf("h%d.com", n)
		begin := time.Now()
		s.Put(ingressOf("changing", host, "web", ""))
		s.Until("the change is live", live(host))
		slowest = append(slowest, time.Since(begin))
		if n%10 == 0 {
			alive(fmt.Sprint("after change ", n))
		}
		if every := changes / (len(sets) - 1); n%every == every/2 && n/every < len(sets)-1 {
			rotated(t, s, viaOne, put, sets[n/every+1], roots)
		}
	}
	slices.Sort(slowest)
	t.Logf("a change is live after %v, p99 %v", slowest[len(slowest)/2], slowest[len(slowest)*99/100])

	// A rolling update: a new pod comes, the old one is taken out, then ends.
	s.Put(slice("default", "web", 11, 12, 13))
	s.Put(slice("default", "web", 11, 13))
	s.Put(ingressOf("changing", "marker.com", "web", ""))
	s.Until("replica one has seen the update", live("marker.com"))
	s.Until("replica two has seen the update", func() bool { return get(client(nil, false, two.address), "http://marker.com/") == "200 web\n" })
	stopOld()
	alive("after the rolling update")

	one.stop()
	s.Until("replica one is not ready", func() bool { return !one.ready() })
	close(withdrawn)
	s.Until("replica one takes no connection", func() bool { return get(client(nil, false, one.address), "http://a.com/") != "200 web\n" })
	alive("while replica one drains")
	for _, stream := range leaving {
		stream.Close()
	}
	leaving = nil
	s.Until("replica one has left", func() bool { return len(one.ended) == 1 })
	before := loads[1].Sent()
	s.Until("the other serves", func() bool { return loads[1].Sent() > before+100 })
	alive("after replica one has left")
	for _, l := range loads {
		if err := l.Stop(); err != nil {
			t.Error(err)
		}
		t.Logf("%d requests", l.Sent())
	}
}

// rotated replaces every certificate and waits until new connections get the
// new ones.
func rotated(t *testing.T, s *api.Server, dial traffic.Dial, put func(map[string]*certificate.Certificate), set map[string]*certificate.Certificate, roots *x509.CertPool) {
	t.Helper()
	begin := time.Now()
	put(set)
	for host, c := range set {
		s.Until("the new certificate of "+host+" is served", func() bool { return traffic.Served(dial, roots, host) == c.Fingerprint() })
	}
	t.Logf("every certificate is replaced after %v", time.Since(begin))
}
