package ingress

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

func program(t *testing.T, r Result, want string) {
	t.Helper()
	want = strings.ReplaceAll(strings.TrimPrefix(want, "\n"), "\t", "")
	if got := r.Program.String(); got != want {
		t.Errorf("program:\n%s\nwant:\n%s", got, want)
	}
}

func TestMergeAndConflict(t *testing.T) {
	r := world(Config{},
		ing("blue/young", "age 1", "host a.com", "Prefix / web:80", "Prefix /api api:80", "Exact /x shop:80"),
		ing("green/old", "age 2", "host a.com", "Prefix /api web:80", "host b.com", "Prefix / web:http"),
		ing("green/twin", "age 1", "host a.com", "Exact /x web:80"),
		ing("blue/disguised", "host a.com", "Prefix /%61pi shop:80"),
	).Compile(now)
	program(t, r, `
		host a.com exact /x -> blue/shop:80 (blue/young)
		host a.com prefix / -> blue/web:80 (blue/young)
		host a.com prefix /api/ -> green/web:80 (green/old)
		host b.com prefix / -> green/web:http (green/old)
		backend blue/api:80 http 10.244.1.5:8080
		backend blue/shop:80 http 10.244.1.6:8080
		backend blue/web:80 http 10.244.1.4:8080
		backend green/web:80 http 10.244.1.7:8080
		backend green/web:http http 10.244.1.7:8080
		`)
	told(t, r, "green/old")
	told(t, r, "blue/young", `Conflict: host "a.com", path "/api" (Prefix): Ingress green/old is older`)
	told(t, r, "green/twin", `Conflict: host "a.com", path "/x" (Exact): Ingress blue/young is older`)
	told(t, r, "blue/disguised", "Ingress green/old is older")
}

func TestOneNamespacePerHost(t *testing.T) {
	r := world(Config{OneNamespacePerHost: true},
		ing("blue/mine", "age 2", "host a.com", "Prefix /web web:80"),
		ing("blue/more", "age 1", "host a.com", "Prefix /api api:80"),
		ing("green/thief", "age 1", "host a.com", "Prefix /web/login web:80"),
	).Compile(now)
	if s := r.Program.String(); strings.Contains(s, "thief") || !strings.Contains(s, "blue/more") {
		t.Errorf("program:\n%s", s)
	}
	told(t, r, "green/thief", "HostTaken: host a.com belongs to namespace blue")
}

func TestClasses(t *testing.T) {
	type class struct {
		controller string
		def        bool
		age        int
	}
	ours, other := class{controller: Controller}, class{controller: "example.com/other"}
	ourDefault, otherDefault := ours, other
	ourDefault.def, otherDefault.def = true, true
	for _, c := range []struct {
		name    string
		classes map[string]class
		class   string
		legacy  string
		served  bool
	}{
		{"ours by name", map[string]class{"poplin": ours}, "poplin", "", true},
		{"ours under any name", map[string]class{"web": ours}, "web", "", true},
		{"another's", map[string]class{"nginx": other}, "nginx", "", false},
		{"no such class", nil, "poplin", "", false},
		{"none, and no default", map[string]class{"poplin": ours}, "", "", false},
		{"none, and ours is the default", map[string]class{"poplin": ourDefault}, "", "", true},
		{"none, and the default is another's", map[string]class{"poplin": ours, "nginx": otherDefault}, "", "", false},
		{"of two defaults the newer", map[string]class{"poplin": ourDefault, "nginx": {other.controller, true, 9}}, "", "", true},
		{"of two as old the first", map[string]class{"poplin": ourDefault, "nginx": otherDefault}, "", "", false},
		{"legacy", map[string]class{"poplin": ours}, "", "poplin", true},
		{"legacy of another", map[string]class{"poplin": ourDefault, "nginx": other}, "", "nginx", false},
		{"legacy wins", map[string]class{"poplin": ours, "nginx": other}, "nginx", "poplin", true},
		{"legacy wins, against us", map[string]class{"poplin": ours, "nginx": other}, "poplin", "nginx", false},
	} {
		w := New(Config{Controllers: []string{Controller}})
		for name, k := range c.classes {
			w.SetClass(name, &cluster.IngressClass{Name: name, Controller: k.controller, Default: k.def, Created: now.Add(-time.Duration(k.age) * time.Hour)})
		}
		i := ing("i", "class "+c.class, "Prefix / web:80")
		if c.legacy != "" {
			i.Annotations[legacyClass] = c.legacy
		}
		w.SetIngress(i.ObjectName, i)
		r := w.Compile(now)
		if served := w.Serves(i.ObjectName) && len(r.Program.Hosts) == 1; served != c.served {
			t.Errorf("%s: served %v", c.name, served)
		}
		// A class that comes, goes or changes hands is followed.
		for name := range c.classes {
			w.SetClass(name, nil)
		}
		if w.Compile(now); w.Serves(i.ObjectName) {
			t.Errorf("%s: served without a class", c.name)
		}
	}
}

func TestBackends(t *testing.T) {
	for _, c := range []struct {
		name, port string
		change     func(*Compiler)
		want       string
		problem    string
	}{
		{name: "by number", port: "80", want: "http 10.244.1.1:8080"},
		{name: "by name", port: "http", want: "http 10.244.1.1:8080"},
		{name: "appProtocol", port: "grpc", want: "h2c 10.244.1.1:9090"},
		{name: "the target's number is not the Service's", port: "8080", want: "http", problem: "has no TCP port 8080"},
		{name: "no Service", port: "80", want: "http", problem: "does not exist", change: func(c *Compiler) { c.SetService(objectName("web"), nil) }},
		{name: "no endpoints", port: "80", want: "http", problem: "no ready endpoint", change: func(c *Compiler) { c.SetEndpoints(objectName("web"), "1", nil) }},
		{name: "ExternalName", port: "80", want: "http", problem: "ExternalName", change: func(c *Compiler) {
			c.SetService(objectName("web"), &cluster.Service{Type: "ExternalName", ExternalName: "localhost"})
		}},
		{name: "a second slice, with another target port", port: "80", want: "http 10.244.1.1:8080 10.244.2.2:9999 [fd00::2]:9999", change: func(c *Compiler) {
			s := endpoints("web", "10.244.2.2", "fd00::2", "10.244.2.2")
			s.Ports[0].Port = 9999
			c.SetEndpoints(objectName("web"), "2", s)
		}},
		{name: "terminating ones stand back", port: "80", want: "http 10.244.1.1:8080 (10.244.2.2:8080)", change: func(c *Compiler) {
			s := endpoints("web", "10.244.2.2", "10.244.2.3")
			s.Endpoints[0].Ready = false
			s.Endpoints[1] = cluster.Endpoint{Addr: netip.MustParseAddr("10.244.2.3")}
			c.SetEndpoints(objectName("web"), "2", s)
		}},
		{name: "addresses that are no pod's", port: "80", want: "http 10.244.1.1:8080", problem: "4 endpoints at addresses that no pod has", change: func(c *Compiler) {
			c.SetEndpoints(objectName("web"), "2", endpoints("web", "127.0.0.1", "169.254.169.254", "::1", "fe80::1"))
		}},
	} {
		w := world(Config{}, ing("i", "Prefix / web:"+c.port))
		w.Compile(now)
		if c.change != nil {
			c.change(w)
		}
		w.All()
		r := w.Compile(now)
		if got := r.Program.String(); !strings.HasSuffix(got, "backend default/web:"+c.port+" "+c.want+"\n") {
			t.Errorf("%s:\n%s", c.name, got)
		}
		if c.problem == "" {
			told(t, r, "i")
		} else {
			told(t, r, "i", c.problem)
		}
	}
}

func TestResourceBackendsHarmNothing(t *testing.T) {
	r := world(Config{}, ing("i", "default resource:StorageBucket", "Prefix /a resource:StorageBucket", "Prefix /b web:80")).Compile(now)
	program(t, r, `
		host (any) prefix /b/ -> default/web:80 (default/i)
		backend default/web:80 http 10.244.1.1:8080
		`)
	told(t, r, "i", "spec.defaultBackend.resource", "spec.rules[0].http.paths[0].backend.resource")
}

func TestWhatAnAPIServerWouldRefuse(t *testing.T) {
	r := world(Config{}, ing("i",
		"host A.com", "Prefix / web:80", "host 1.2.3.4:80", "Prefix / web:80", "host *", "Prefix / web:80",
		"host a.*.com", "Prefix / web:80", "host ok.com", "Prefix /a%zz web:80", "Prefix / web:80")).Compile(now)
	program(t, r, `
		host ok.com prefix / -> default/web:80 (default/i)
		backend default/web:80 http 10.244.1.1:8080
		`)
	told(t, r, "i", "InvalidHost", "InvalidHost", "InvalidHost", "InvalidHost", "InvalidPath")
}

func TestAnotherNamespacesSecretsAreRefused(t *testing.T) {
	w := world(Config{}, ing("blue/i", "Prefix / web:80",
		"ingress.poplin.dev/auth-type: basic", "ingress.poplin.dev/auth-secret: green/users"))
	if got := w.Wanted(); got != nil {
		t.Errorf("wants %v", got)
	}
	r := w.Compile(now)
	told(t, r, "blue/i", "Secret green/users, which is in another namespace")
	if s := r.Program.String(); !strings.Contains(s, "-> closed:") {
		t.Errorf("not closed:\n%s", s)
	}
}

func TestAuthenticationFailsClosed(t *testing.T) {
	w := world(Config{}, ing("i", "Prefix / web:80", "Prefix /.well-known/acme-challenge/x web:80",
		"nginx.ingress.kubernetes.io/auth-type: basic", "nginx.ingress.kubernetes.io/auth-secret: users"))
	users := objectName("users")
	r := w.Compile(now)
	told(t, r, "i", "Secret default/users, which does not exist; until then every request is refused")
	if p := w.Pending(); len(p) != 1 || p[0] != users {
		t.Errorf("pending: %v", p)
	}
	for _, c := range []struct {
		data  map[string]string
		users int
	}{
		{map[string]string{"auth": "ann:$apr1$x$y\n\n# old\nbob:{SHA}z\n"}, 2},
		{map[string]string{"auth": "ann"}, 0},
		{map[string]string{"other": "ann:x"}, 0},
		{nil, 0},
	} {
		s := cluster.Secret{ObjectName: users, Data: map[string][]byte{}}
		for k, v := range c.data {
			s.Data[k] = []byte(v)
		}
		w.SetSecret(users, &s)
		route := w.Compile(now).Program.Match("any", "/")
		if got := len(route.Basic.Users); got != c.users || (route.Closed == "") != (got > 0) {
			t.Errorf("%v: %d users, closed %q", c.data, got, route.Closed)
		}
	}
	w.SetSecret(users, nil)
	if w.Compile(now).Program.Match("any", "/").Closed == "" || len(w.Pending()) != 0 {
		t.Error("open without a Secret")
	}
}

func TestHostVariableNeedsAHost(t *testing.T) {
	const annotation = "nginx.ingress.kubernetes.io/auth-url: https://$host/auth"
	r := world(Config{}, ing("i", annotation, "Prefix /a web:80", "host a.com", "Prefix /a web:80")).Compile(now)
	if r.Program.Match("other.com", "/a").Closed == "" || r.Program.Match("a.com", "/a").Closed != "" {
		t.Errorf("program:\n%s", r.Program)
	}
}

// TestOneByOneIsTheSameAsAtOnce compares many random steps with a compiler
// that is told of everything at the end.
func TestOneByOneIsTheSameAsAtOnce(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	pick := func(list ...string) string { return list[rng.IntN(len(list))] }
	step := world(Config{OneNamespacePerHost: false})
	live := map[cluster.ObjectName]*cluster.Ingress{}
	dropped := map[cluster.ObjectName]bool{}
	findings := map[cluster.ObjectName][]Finding{}
	for n := range 2000 {
		name := pick("blue", "green") + "/" + pick("a", "b", "c", "d")
		switch rng.IntN(5) {
		case 0:
			step.SetIngress(objectName(name), nil)
			delete(live, objectName(name))
		case 1:
			service := objectName(pick("blue", "green") + "/" + pick("web", "api"))
			if dropped[service] = !dropped[service]; dropped[service] {
				step.SetEndpoints(service, "1", nil)
			} else {
				step.SetEndpoints(service, "1", endpoints(service.String(), "10.9.9.9"))
			}
		default:
			i := ing(name, "age "+fmt.Sprint(rng.IntN(4)), "class "+pick("poplin", "poplin", "other"))
			for range 1 + rng.IntN(3) {
				i.Rules = append(i.Rules, ing("x", "host "+pick("", "a.com", "*.com", "b.a.com"), pick("Prefix", "Exact", "ImplementationSpecific")+" "+pick("/", "/a", "/a/", "/b")+" "+pick("web", "api", "none")+":80").Rules...)
			}
			step.SetIngress(i.ObjectName, i)
			live[i.ObjectName] = i
		}
		if rng.IntN(3) == 0 {
			continue
		}
		r := step.Compile(now)
		maps.Copy(findings, r.Findings)
		if n%50 != 0 {
			continue
		}
		whole := world(Config{})
		for service, gone := range dropped {
			whole.SetEndpoints(service, "1", nil)
			if !gone {
				whole.SetEndpoints(service, "1", endpoints(service.String(), "10.9.9.9"))
			}
		}
		for name, i := range live {
			whole.SetIngress(name, i)
		}
		want := whole.Compile(now)
		if got, want := r.Program.String(), want.Program.String(); got != want {
			t.Fatalf("after %d steps:\n%s\nwant:\n%s", n, got, want)
		}
		for name := range live {
			if got, want := findings[name], want.Findings[name]; !reflect.DeepEqual(got, want) {
				t.Fatalf("after %d steps, %s:\n%v\nwant:\n%v", n, name, got, want)
			}
		}
	}
}

// many is a cluster of n Ingresses, each with a host of its own.
func many(n int) *Compiler {
	w := world(Config{})
	for k := range n {
		i := ing(fmt.Sprintf("blue/i%d", k), fmt.Sprintf("host h%d.example.com", k), "Prefix / web:80", "Prefix /api api:80")
		w.SetIngress(i.ObjectName, i)
	}
	return w
}

func BenchmarkCompileAll5000(b *testing.B) {
	for b.Loop() {
		w := many(5000)
		w.Compile(now)
	}
}

func BenchmarkCompileOneOf5000(b *testing.B) {
	w := many(5000)
	w.Compile(now)
	for k := 0; b.Loop(); k++ {
		i := ing("blue/i7", "host h7.example.com", "Prefix / web:80", fmt.Sprintf("Prefix /v%d api:80", k))
		w.SetIngress(i.ObjectName, i)
		w.Compile(now)
	}
}

func TestAddresses(t *testing.T) {
	lb := []cluster.IngressAddress{{IP: "192.0.2.1"}, {Hostname: "lb.example.com"}}
	for _, c := range []struct {
		s    *cluster.Service
		want []cluster.IngressAddress
	}{
		{nil, nil},
		{&cluster.Service{Type: "LoadBalancer", LoadBalancer: lb, ClusterIPs: []string{"10.0.0.1"}}, lb},
		{&cluster.Service{Type: "LoadBalancer", ClusterIPs: []string{"10.0.0.1"}}, nil},
		{&cluster.Service{Type: "NodePort", ClusterIPs: []string{"10.0.0.1", "fd00::1"}}, []cluster.IngressAddress{{IP: "10.0.0.1"}, {IP: "fd00::1"}}},
		{&cluster.Service{Type: "NodePort", ClusterIPs: []string{"10.0.0.1"}, ExternalIPs: []string{"192.0.2.7"}}, []cluster.IngressAddress{{IP: "192.0.2.7"}}},
		{&cluster.Service{Type: "ClusterIP", ClusterIPs: []string{"None"}}, nil},
	} {
		if got := Addresses(c.s); !reflect.DeepEqual(got, c.want) && len(got)+len(c.want) > 0 {
			t.Errorf("%+v: %v, want %v", c.s, got, c.want)
		}
	}
}
