package annotation

import (
	"fmt"
	"net/netip"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// read reads annotations given as "name=value; name=value" under one prefix.
func read(prefix, text string) (Settings, []Problem) {
	m := map[string]string{}
	for part := range strings.SplitSeq(text, "; ") {
		name, value, _ := strings.Cut(part, "=")
		m[prefix+name] = strings.ReplaceAll(value, "|", "; ")
	}
	return Read(m)
}

func TestRead(t *testing.T) {
	prefixes := func(list ...string) (all []netip.Prefix) {
		for _, s := range list {
			all = append(all, netip.MustParsePrefix(s))
		}
		return all
	}
	for _, c := range []struct {
		text string
		want func(*Settings)
	}{
		{"ssl-redirect=false", func(s *Settings) { s.SSLRedirect = false }},
		{"force-ssl-redirect=true", func(s *Settings) { s.ForceSSLRedirect = true }},
		{"proxy-body-size=8m", func(s *Settings) { s.BodyLimit = 8 << 20 }},
		{"proxy-body-size=1G", func(s *Settings) { s.BodyLimit = 1 << 30 }},
		{"proxy-body-size=512", func(s *Settings) { s.BodyLimit = 512 }},
		{"proxy-body-size=0", func(*Settings) {}},
		{"proxy-connect-timeout=3; proxy-read-timeout=120; proxy-send-timeout=90s", func(s *Settings) {
			s.Connect, s.Read, s.Send = 3*time.Second, 2*time.Minute, 90*time.Second
		}},
		{"proxy-buffering=off; proxy-request-buffering=on; proxy-buffer-size=16k", func(*Settings) {}},
		{"backend-protocol=GRPC", func(s *Settings) { s.Upstream.Protocol = web.H2C }},
		{"backend-protocol=http", func(s *Settings) { s.Upstream.Protocol = web.HTTP }},
		{"upstream-vhost=inner.example.com", func(s *Settings) { s.Upstream.Host = "inner.example.com" }},
		{"whitelist-source-range=10.0.0.0/8, fd00::/8", nil},
		{"allowlist-source-range=10.1.2.3,10.0.0.1/8", func(s *Settings) { s.Allow = prefixes("10.1.2.3/32", "10.0.0.0/8") }},
		{"denylist-source-range=::1", func(s *Settings) { s.Deny = prefixes("::1/128") }},
		{"permanent-redirect=https://new.example.com/a?b=c", func(s *Settings) {
			s.Redirect = web.Redirect{To: "https://new.example.com/a?b=c", Code: 301}
		}},
		{"permanent-redirect=/new; permanent-redirect-code=308", func(s *Settings) { s.Redirect = web.Redirect{To: "/new", Code: 308} }},
		{"temporal-redirect=https://t.example.com", func(s *Settings) { s.Redirect = web.Redirect{To: "https://t.example.com", Code: 302} }},
		{"auth-type=basic; auth-secret=users; auth-realm=Staff only; auth-secret-type=auth-map", func(s *Settings) {
			s.Basic, s.AuthSecret, s.AuthMap = &web.BasicAuth{Realm: "Staff only"}, "users", true
		}},
		{"auth-url=http://auth.default.svc/v; auth-response-headers=X-User, X-Email", func(s *Settings) {
			s.External = &web.ExternalAuth{URL: web.Template{{Text: "http://auth.default.svc/v"}}, Headers: []string{"X-User", "X-Email"}}
		}},
		{"auth-url=https://$host/oauth2/auth; auth-signin=https://$host/oauth2/start?rd=$escaped_request_uri", func(s *Settings) {
			s.External = &web.ExternalAuth{
				URL:    web.Template{{Text: "https://"}, {Variable: web.VarHost}, {Text: "/oauth2/auth"}},
				SignIn: web.Template{{Text: "https://"}, {Variable: web.VarHost}, {Text: "/oauth2/start?rd="}, {Variable: web.VarEscapedURI}},
			}
		}},
		{"affinity=cookie", func(s *Settings) { s.Affinity = &web.Affinity{Cookie: "INGRESSCOOKIE"} }},
		{"affinity=cookie; affinity-mode=persistent; session-cookie-name=s; session-cookie-path=/x; session-cookie-max-age=60; session-cookie-samesite=Lax; session-cookie-secure=true; session-cookie-change-on-failure=true", func(s *Settings) {
			s.Affinity = &web.Affinity{Cookie: "s", Path: "/x", MaxAge: 60, SameSite: "lax", Secure: true, Move: true}
		}},
		{"session-cookie-name=s", func(*Settings) {}},
		{"enable-access-log=false", func(s *Settings) { s.NoAccessLog = true }},
	} {
		if c.want == nil {
			continue
		}
		want := Settings{SSLRedirect: true}
		c.want(&want)
		for _, prefix := range []string{Prefix, Nginx} {
			if got, problems := read(prefix, c.text); len(problems) > 0 || !reflect.DeepEqual(got, want) {
				t.Errorf("%s%s:\ngot  %+v %v\nwant %+v", prefix, c.text, got, problems, want)
			}
		}
	}
}

// TestOwnAndNginx are the few names that mean different things.
func TestOwnAndNginx(t *testing.T) {
	own, _ := read(Prefix, "use-regex=true; rewrite-target=/$1; backend-protocol=HTTPS; enable-cors=true")
	if !own.Regexp || own.RegexpAll || own.Upstream.Insecure || own.CORS.Credentials {
		t.Errorf("own: %+v", own)
	}
	nginx, _ := read(Nginx, "rewrite-target=/$1; backend-protocol=HTTPS; enable-cors=true; whitelist-source-range=0.0.0.0/0,::/0")
	if !nginx.RegexpAll || !nginx.Upstream.Insecure || !nginx.CORS.Credentials || len(nginx.Allow) != 2 {
		t.Errorf("nginx: %+v", nginx)
	}
	verified, _ := read(Nginx, "backend-protocol=HTTPS; proxy-ssl-verify=on; proxy-ssl-secret=default/ca; proxy-ssl-name=inner.example.com")
	if verified.Upstream.Insecure || verified.BackendCA != "default/ca" || verified.Upstream.ServerName != "inner.example.com" {
		t.Errorf("verified: %+v", verified)
	}
	both, _ := Read(map[string]string{Prefix + "proxy-body-size": "2m", Nginx + "proxy-body-size": "1m"})
	if both.BodyLimit != 2<<20 {
		t.Errorf("our name must win: %d", both.BodyLimit)
	}
	hsts, problems := read(Prefix, "hsts=max-age=60|includeSubDomains")
	if hsts.HSTS != "max-age=60; includeSubDomains" || problems != nil {
		t.Errorf("hsts: %q %v", hsts.HSTS, problems)
	}
}

func TestCORS(t *testing.T) {
	s, problems := read(Nginx, "enable-cors=true; cors-allow-origin=https://a.com, https://*.b.com:8443; cors-allow-methods=GET,PUT; cors-allow-headers=X-A; cors-expose-headers=X-B,X-C; cors-allow-credentials=false; cors-max-age=60")
	if problems != nil {
		t.Fatal(problems)
	}
	c := s.CORS
	if c.Any || !c.Origins["https://a.com"] || c.Methods != "GET, PUT" || c.Headers != "X-A" || c.Expose != "X-B, X-C" || c.Credentials || c.MaxAgeSeconds != 60 {
		t.Errorf("%+v", c)
	}
	for origin, want := range map[string]bool{
		"https://x.b.com:8443":      true,
		"https://x.y.b.com:8443":    false,
		"https://.b.com:8443":       false,
		"https://x.b.com":           false,
		"https://xb.com:8443":       false,
		"https://x.b.com:8443.evil": false,
	} {
		if got := c.Patterns[0].MatchString(origin); got != want {
			t.Errorf("%s: %v", origin, got)
		}
	}
	if s, _ := read(Nginx, "enable-cors=true"); !s.CORS.Any || s.CORS.Methods == "" || s.CORS.MaxAgeSeconds != 1728000 {
		t.Errorf("defaults: %+v", s.CORS)
	}
}

func TestProblems(t *testing.T) {
	for _, c := range []struct {
		annotation, text string
		closed           bool
	}{
		{"ssl-redirect=maybe", "is neither true nor false", false},
		{"proxy-read-timeout=soon", "is no number of seconds", false},
		{"proxy-read-timeout=0", "is no number of seconds", false},
		{"proxy-body-size=big", "is no size", true},
		{"proxy-body-size=9999999999999999g", "is no size", true},
		{"proxy-buffering=maybe", "is neither on nor off", false},
		{"backend-protocol=FCGI", "is not supported", true},
		{"rewrite-target=", "is empty", true},
		{"rewrite-target=https://example.com/", "is no path", true},
		{"rewrite-target=/$host", "uses a variable", true},
		{"rewrite-target=/x?y=z", "has more than a path", true},
		{"use-regex=x", "is neither true nor false", true},
		{"whitelist-source-range=office", "is no range of addresses", true},
		{"whitelist-source-range=10.0.0.0/8,", "is no range of addresses", true},
		{"whitelist-source-range=", "is no range of addresses", true},
		{"denylist-source-range=::ffff:10.0.0.0/104", "is no range of addresses", true},
		{"auth-type=digest; auth-secret=x", "is not supported: write basic", true},
		{"auth-type=basic", "is missing beside auth-type", true},
		{"auth-secret=users", "is missing beside auth-secret", true},
		{"auth-type=basic; auth-secret=../users", "is no name of a Secret", true},
		{"auth-type=basic; auth-secret=a/b/c", "is no name of a Secret", true},
		{"auth-url=/verify", "is no URL", true},
		{"auth-url=https://$cookie_x/", "is not known", true},
		{"auth-url=file:///etc/passwd", "is no URL", true},
		{"auth-url=https://u:p@auth/", "is no URL", true},
		{"auth-response-headers=X A", "is no list of names", true},
		{"cors-allow-origin=a.com", "is no origin", true},
		{"affinity=ip", "is not supported", false},
		{"session-cookie-name=a b", "is no cookie name", false},
		{"session-cookie-samesite=maybe", "is not understood", false},
		{"upstream-vhost=a b", "is no host name", true},
		{"permanent-redirect=javascript:alert(1)", "is no URL", true},
		{"permanent-redirect=//evil.example.com", "is no URL", true},
		{"proxy-ssl-verify=maybe", "is neither on nor off", true},

		// Of ingress-nginx, not read.
		{"auth-tls-secret=default/ca", "decides who may enter", true},
		{"auth-tls-verify-client=off", "decides who may enter", false},
		{"satisfy=any", "decides who may enter", true},
		{"enable-modsecurity=true", "decides who may enter", true},
		{"limit-rps=5", "is ignored", false},
		{"canary=true", "is ignored", false},
		{"auth-cache-key=x", "is ignored", false},
		{"configuration-snippet=more_set_headers x;", "never evaluated", false},
		{"configuration-snippet=deny all;", "never evaluated", true},
		{"auth-snippet=x", "never evaluated", true},
	} {
		s, problems := read(Nginx, c.annotation)
		if len(problems) != 1 || !strings.Contains(problems[0].Text, c.text) || problems[0].Closed != c.closed || (s.Closed != "") != c.closed {
			t.Errorf("%s: %v, closed %q; want %q, closed %v", c.annotation, problems, s.Closed, c.text, c.closed)
		}
	}
	for _, c := range []struct {
		annotation string
		closed     bool
	}{{"proxy-boddy-size=1m", false}, {"auth-tpye=basic", true}, {"hsts=maybe", false}} {
		s, problems := read(Prefix, c.annotation)
		if len(problems) != 1 || (s.Closed != "") != c.closed {
			t.Errorf("%s: %v, closed %q", c.annotation, problems, s.Closed)
		}
	}
	if _, problems := Read(map[string]string{"cert-manager.io/issuer": "x", "kubernetes.io/tls-acme": "true"}); problems != nil {
		t.Errorf("others' annotations: %v", problems)
	}
}

func TestClassify(t *testing.T) {
	for key, want := range map[string]Known{
		Nginx + "proxy-body-size":        Supported,
		Nginx + "proxy-ssl-secret":       Supported,
		Nginx + "proxy-buffer-size":      NoEffect,
		Nginx + "limit-rps":              Ignored,
		Nginx + "auth-tls-secret":        Unsupported,
		Nginx + "configuration-snippet":  Unsupported,
		Prefix + "hsts":                  Supported,
		"cert-manager.io/cluster-issuer": Unknown,
	} {
		if got := Classify(key); got != want {
			t.Errorf("%s: %v, want %v", key, got, want)
		}
	}
}

func FuzzRead(f *testing.F) {
	for _, r := range rules {
		f.Add(r.Name, "https://a.com/$host,10.0.0.0/8")
	}
	f.Fuzz(func(t *testing.T, name, value string) {
		s, problems := Read(map[string]string{Nginx + name: value, Prefix + "enable-cors": "true", Prefix + "affinity": "cookie"})
		for _, p := range problems {
			if p.Closed && s.Closed == "" {
				t.Errorf("%v: not closed", p)
			}
		}
		_ = fmt.Sprint(s)
	})
}
