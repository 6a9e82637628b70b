package ingress

import (
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/program/web"
)

// route says which back end a request takes, as the proxy asks.
func route(p *web.Program, host, path string) string {
	clean, err := web.Clean(path)
	if err != nil {
		return err.Error()
	}
	r := p.Match(host, clean)
	if r == nil {
		return "404"
	}
	return r.Backend.Service.Name
}

// The rules of the API for paths, row by row as its documentation has them:
// each Service is named after its path.
func TestPaths(t *testing.T) {
	for _, c := range []struct {
		paths   string
		request string
		want    string
	}{
		{"Prefix / all", "/", "all"},
		{"Prefix / all", "/any/thing", "all"},
		{"Exact /foo foo", "/foo", "foo"},
		{"Exact /foo foo", "/bar", "404"},
		{"Exact /foo foo", "/foo/", "404"},
		{"Exact /foo/ foo", "/foo", "404"},
		{"Exact /foo/ foo", "/foo/", "foo"},
		{"Prefix /foo foo", "/foo", "foo"},
		{"Prefix /foo foo", "/foo/", "foo"},
		{"Prefix /foo/ foo", "/foo", "foo"},
		{"Prefix /foo/ foo", "/foo/", "foo"},
		{"Prefix /aaa/bb b", "/aaa/bbb", "404"},
		{"Prefix /aaa/bbb b", "/aaa/bbb", "b"},
		{"Prefix /aaa/bbb/ b", "/aaa/bbb", "b"},
		{"Prefix /aaa/bbb b", "/aaa/bbb/", "b"},
		{"Prefix /aaa/bbb b", "/aaa/bbb/ccc", "b"},
		{"Prefix /aaa/bbb b", "/aaa/bbbxyz", "404"},
		{"Prefix / all, Prefix /aaa a", "/aaa/ccc", "a"},
		{"Prefix / all, Prefix /aaa a, Prefix /aaa/bbb b", "/aaa/bbb", "b"},
		{"Prefix / all, Prefix /aaa a, Prefix /aaa/bbb b", "/ccc", "all"},
		{"Prefix /aaa a, default other", "/ccc", "other"},
		{"Prefix /foo prefix, Exact /foo exact", "/foo", "exact"},
		{"Exact /foo exact, Prefix /foo prefix", "/foo", "exact"},
		{"Exact /foo exact, Prefix /foo prefix", "/foo/bar", "prefix"},

		{"Prefix /Foo foo", "/foo", "404"},
		{"Prefix /foo short, Prefix /foo/ long", "/foo", "long"},
		{"Prefix /foo/ long, Prefix /foo short", "/foo", "long"},
		{"Prefix /foo/ long, Prefix /foo short", "/foo/", "long"},
		{"ImplementationSpecific /foo foo", "/foo/bar", "foo"},
		{"ImplementationSpecific /foo foo", "/foobar", "404"},
		{"ImplementationSpecific /foo foo, Exact /foo exact", "/foo", "exact"},
		{"Prefix /caf%C3%A9 c", "/café/x", "c"},
		{"Prefix /a%20b c", "/a%20b", "c"},

		// What is matched is what is forwarded: no spelling goes around a route.
		{"Prefix / all, Prefix /admin admin", "//admin", "admin"},
		{"Prefix / all, Prefix /admin admin", "/x/../admin", "admin"},
		{"Prefix / all, Prefix /admin admin", "/%61dmin", "admin"},
		{"Prefix / all, Prefix /admin admin", "/./admin/", "admin"},
		{"Prefix / all, Prefix /admin admin", "/admin/../x", "all"},
		{"Prefix / all, Prefix /admin admin", "/x%2Fadmin", "all"},
		{"Prefix / all, Prefix /admin admin", "/x/..%2Fadmin", web.ErrAmbiguous.Error()},
		{"Prefix / all, Prefix /admin admin", "/x/..;/admin", web.ErrAmbiguous.Error()},
	} {
		var lines []string
		for p := range strings.SplitSeq(c.paths, ", ") {
			lines = append(lines, p+":80")
		}
		p := world(Config{}, ing("i", lines...)).Compile(now).Program
		if got := route(p, "any.example.com", c.request); got != c.want {
			t.Errorf("%s | %s: %s, want %s", c.paths, c.request, got, c.want)
		}
	}
}

func TestHosts(t *testing.T) {
	p := world(Config{},
		ing("exact", "host www.foo.com", "Prefix /a exact:80"),
		ing("wild", "host *.foo.com", "Prefix / wild:80"),
		ing("any", "Prefix /b any:80"),
	).Compile(now).Program
	for _, c := range []struct{ host, path, want string }{
		{"www.foo.com", "/a", "exact"},
		// The host is chosen first; its paths do not fall through.
		{"www.foo.com", "/b", "404"},
		{"bar.foo.com", "/b", "wild"},
		{"baz.bar.foo.com", "/a", "404"},
		{"baz.bar.foo.com", "/b", "any"},
		{"foo.com", "/b", "any"},
		{"10.0.0.1", "/b", "any"},
	} {
		if got := route(p, c.host, c.path); got != c.want {
			t.Errorf("%s%s: %s, want %s", c.host, c.path, got, c.want)
		}
	}
}

func TestDefaultBackends(t *testing.T) {
	id := web.BackendID{Service: objectName("default/last"), Port: "80"}
	for _, c := range []struct {
		name       string
		ingresses  []string // "name: lines, ..."
		host, path string
		want       string
	}{
		{"no rules", []string{"i: default all:80"}, "a.com", "/x", "all"},
		{"rules and a default, path of its host", []string{"i: default d:80, host a.com, Prefix /x web:80"}, "a.com", "/y", "d"},
		{"rules and a default, other host", []string{"i: default d:80, host a.com, Prefix /x web:80"}, "b.com", "/y", "d"},
		{"the one without rules is for other hosts", []string{"i: age 9, default d:80, host a.com, Prefix /x web:80", "j: default all:80"}, "b.com", "/y", "all"},
		{"but not for a host with its own", []string{"i: default d:80, host a.com, Prefix /x web:80", "j: age 9, default all:80"}, "a.com", "/y", "d"},
		{"nor for a host without", []string{"i: host a.com, Prefix /x web:80", "j: default all:80"}, "a.com", "/y", "last"},
		{"a host without paths", []string{"i: default d:80, host a.com"}, "a.com", "/y", "d"},
		{"the oldest", []string{"i: age 1, default young:80", "j: age 2, default old:80"}, "a.com", "/", "old"},
		{"the controller's", []string{"i: host a.com, Prefix /x web:80"}, "b.com", "/", "last"},
	} {
		w := world(Config{DefaultBackend: id})
		for _, text := range c.ingresses {
			name, lines, _ := strings.Cut(text, ": ")
			i := ing(name, strings.Split(lines, ", ")...)
			w.SetIngress(i.ObjectName, i)
		}
		if got := route(w.Compile(now).Program, c.host, c.path); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestRegularExpressions(t *testing.T) {
	const own, nginx = "ingress.poplin.dev/use-regex: true", "nginx.ingress.kubernetes.io/use-regex: true"
	for _, c := range []struct {
		annotation, paths, request, want string
	}{
		{own, "ImplementationSpecific /v[0-9]+/ v", "/v12/x", "v"},
		{own, "ImplementationSpecific /v[0-9]+/ v", "/V12/x", "404"},
		{own, "ImplementationSpecific /v[0-9]+/ v", "/x/v1/", "404"},
		{own, "ImplementationSpecific /a|/b v", "/c/b", "404"},
		{own, "Prefix /v. v", "/vx", "404"},
		{own, "ImplementationSpecific /v.* v, Exact /v1 exact", "/v1", "exact"},
		{own, "ImplementationSpecific /v.* v, Prefix /v1/long long", "/v1/long", "long"},
		{own, "ImplementationSpecific /v.*/.*/.* v, Prefix /v1 p", "/v1/a/b", "v"},
		{own, "ImplementationSpecific /(?!x) bad, Prefix / all", "/x", "all"},
		{nginx, "Prefix /something(/|$)(.*) s", "/SOMEthing/x", "s"},
		{nginx, "Prefix /foo f", "/foobar", "f"},
		{nginx, "Exact /foo f", "/foobar", "404"},
		{"nginx.ingress.kubernetes.io/rewrite-target: /", "Prefix /foo f", "/foobar", "f"},
	} {
		lines := []string{c.annotation}
		for p := range strings.SplitSeq(c.paths, ", ") {
			lines = append(lines, p+":80")
		}
		p := world(Config{}, ing("i", lines...)).Compile(now).Program
		if got := route(p, "any.example.com", c.request); got != c.want {
			t.Errorf("%s | %s | %s: %s, want %s", c.annotation, c.paths, c.request, got, c.want)
		}
	}
	r := world(Config{}, ing("i", own, "ImplementationSpecific /(?!x) web:80")).Compile(now)
	told(t, r, "i", "InvalidPath: host \"\", path \"/(?!x)\"")
	// One Ingress' expressions leave the paths of another alone.
	p := world(Config{}, ing("i", nginx, "host a.com", "Prefix /x x:80"), ing("j", "host a.com", "Prefix /foo foo:80")).Compile(now).Program
	if got := route(p, "a.com", "/foobar"); got != "404" {
		t.Errorf("another Ingress' prefix became an expression: %s", got)
	}
}
