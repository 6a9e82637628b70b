package web

import (
	"errors"
	"strings"
	"testing"
)

func TestClean(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"/", "/"},
		{"/foo", "/foo"},
		{"/foo/", "/foo/"},
		{"/a.b/c-d_e~f/$&'()*+,=:@!", "/a.b/c-d_e~f/$&'()*+,=:@!"},
		// Dots.
		{"/a/./b", "/a/b"},
		{"/a/../b", "/b"},
		{"/a/b/..", "/a/"},
		{"/a/b/.", "/a/b/"},
		{"/..", "/"},
		{"/../../etc/passwd", "/etc/passwd"},
		{"/a/%2e%2e/b", "/b"},
		{"/a/%2E./b", "/b"},
		{"/.well-known/x", "/.well-known/x"},
		{"/a/...", "/a/..."},
		{"/a/..b/b..", "/a/..b/b.."},
		// Empty elements.
		{"//", "/"},
		{"//admin", "/admin"},
		{"/a//b///c//", "/a/b/c/"},
		{"/a/..//b", "/b"},
		// Escapes.
		{"/%61dmin", "/admin"},
		{"/%7euser", "/~user"},
		{"/caf%c3%a9", "/caf%C3%A9"},
		{"/café", "/caf%C3%A9"},
		{"/a b", "/a%20b"},
		{"/a%20b", "/a%20b"},
		{"/a%2fb", "/a%2Fb"},
		{"/a+b%2Bc", "/a+b%2Bc"},
		{`/a\b`, "/a%5Cb"},
		{"/a;v=1/b", "/a;v=1/b"},
		{"/%252e%252e/a", "/%252e%252e/a"},
		{"/a%2F.b", "/a%2F.b"},
		{"/..;a", "refused"},
	} {
		got, err := Clean(c.in)
		if c.want == "refused" {
			if !errors.Is(err, ErrAmbiguous) {
				t.Errorf("%s: %q, %v", c.in, got, err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v; want %q", c.in, got, err, c.want)
		}
	}
}

func TestCleanRefuses(t *testing.T) {
	for in, want := range map[string]error{
		"":                       ErrPath,
		"*":                      ErrPath,
		"foo":                    ErrPath,
		"/a%":                    ErrPath,
		"/a%2":                   ErrPath,
		"/a%zz":                  ErrPath,
		"/a%00b":                 ErrPath,
		"/a\x00b":                ErrPath,
		"/a\tb":                  ErrPath,
		"/public/..%2fadmin":     ErrAmbiguous,
		"/public/%2e%2e%2fadmin": ErrAmbiguous,
		"/public/..%5cadmin":     ErrAmbiguous,
		`/public/..\admin`:       ErrAmbiguous,
		"/public/..;/admin":      ErrAmbiguous,
		"/public/..;x=1/admin":   ErrAmbiguous,
		"/public/..%3b/admin":    ErrAmbiguous,
		"/public/x%2f../admin":   ErrAmbiguous,
	} {
		if got, err := Clean(in); !errors.Is(err, want) {
			t.Errorf("%q: %q, %v; want %v", in, got, err, want)
		}
	}
}

// FuzzClean holds what matching and forwarding rest on: the normal form is
// stable and cannot climb.
func FuzzClean(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "//x//", "/%2e%2E/%2f..", "/a;b/..;/c", "/\xff%ff", "/a%252e"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		once, err := Clean(in)
		if err != nil {
			return
		}
		twice, err := Clean(once)
		if err != nil || twice != once {
			t.Fatalf("%q: %q, then %q, %v", in, once, twice, err)
		}
		if once[0] != '/' || strings.Contains(once, "//") || strings.Contains(once, "/../") || strings.HasSuffix(once, "/..") {
			t.Fatalf("%q: %q is not in normal form", in, once)
		}
	})
}

func TestHostName(t *testing.T) {
	for in, want := range map[string]string{
		"Shop.Example.COM":      "shop.example.com",
		"shop.example.com:8443": "shop.example.com",
		"shop.example.com:":     "shop.example.com",
		"shop.example.com.":     "shop.example.com",
		"10.0.0.1:80":           "10.0.0.1",
		"[fd00::1]:80":          "fd00::1",
		"[fd00::1]":             "fd00::1",
		"a_b.example.com":       "a_b.example.com",
		"":                      "",
		".example.com":          "",
		"a..example.com":        "",
		"a.com:80:80":           "",
		"a.com:http":            "",
		"a.com/x":               "",
		"a b":                   "",
		"user@a.com":            "",
		"[fd00::1":              "",
		"[fe80::1%25eth0]":      "",
		"fd00::1":               "",
		"a.com,b.com":           "",
	} {
		got, ok := HostName(in)
		if !ok {
			got = ""
		}
		if got != want {
			t.Errorf("%q: %q, %v; want %q", in, got, ok, want)
		}
	}
}

func TestWildcardOpensOneLabel(t *testing.T) {
	wild, exact, other := &Host{Name: "*.foo.com"}, &Host{Name: "www.foo.com"}, &Host{}
	p := Program{Hosts: map[string]*Host{"*.foo.com": wild, "www.foo.com": exact, "": other}}
	for host, want := range map[string]*Host{
		"bar.foo.com":     wild,
		"www.foo.com":     exact,
		"baz.bar.foo.com": other,
		"foo.com":         other,
		"example.com":     other,
		"localhost":       other,
	} {
		if got := p.Host(host); got != want {
			t.Errorf("%s: host %q, want %q", host, got.Name, want.Name)
		}
	}
}

func TestTemplate(t *testing.T) {
	r := Request{Scheme: "https", Host: "a.example.com", URI: "/x?y=1&z", Method: "GET"}
	for in, want := range map[string]string{
		"https://auth.example.com/verify":                        "https://auth.example.com/verify",
		"https://$host/oauth2/start?rd=$escaped_request_uri":     "https://a.example.com/oauth2/start?rd=%2Fx%3Fy%3D1%26z",
		"$scheme://$http_host$request_uri":                       "https://a.example.com/x?y=1&z",
		"http://auth/$request_method":                            "http://auth/GET",
		"https://$host/oauth2/start?rd=$scheme://$host/after/it": "https://a.example.com/oauth2/start?rd=https://a.example.com/after/it",
	} {
		tpl, err := ParseTemplate(in)
		if err != nil {
			t.Errorf("%s: %v", in, err)
		} else if got := tpl.Fill(r); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	for _, bad := range []string{"https://$cookie_a/", "https://$host_name/", "$", "${host}"} {
		if _, err := ParseTemplate(bad); err == nil {
			t.Errorf("%s: accepted", bad)
		}
	}
}

func TestDeepPathsAreCheap(t *testing.T) {
	h := Host{Prefix: map[string]*Route{"/a/b": {}}, Depth: 2}
	deep := "/a/b" + strings.Repeat("/x", 1<<15)
	if h.Match(deep) == nil {
		t.Fatal("no route")
	}
	if n := testing.AllocsPerRun(10, func() { h.Match(deep); Clean(deep) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
