package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/ingress/annotation"
	"poplin.dev/poplin/pkg/program/web"
)

// options reads annotations as users write them, so that each one is tested
// from its text to what goes over the wire.
func options(t *testing.T, lines ...string) web.Options {
	t.Helper()
	m := map[string]string{}
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		m[annotation.Nginx+name] = value
	}
	s, problems := annotation.Read(m)
	if problems != nil {
		t.Fatal(problems)
	}
	return s.Options
}

func TestAddressRanges(t *testing.T) { engines(t, testAddressRanges) }

func testAddressRanges(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	back := server(t, echo)
	for _, c := range []struct {
		annotation string
		want       int
	}{
		{"whitelist-source-range: 127.0.0.0/8", 200},
		{"whitelist-source-range: 10.0.0.0/8,127.0.0.1", 200},
		{"whitelist-source-range: 10.0.0.0/8", 403},
		{"denylist-source-range: 127.0.0.0/8", 403},
		{"denylist-source-range: 10.0.0.0/8", 200},
	} {
		f.route(options(t, c.annotation), back)
		// Nobody's word but the connection's counts.
		if status, _, _ := f.get("GET /", "X-Forwarded-For: 10.0.0.1"); status != c.want {
			t.Errorf("%s: %d, want %d", c.annotation, status, c.want)
		}
	}
}

func TestBasicAuthentication(t *testing.T) { engines(t, testBasicAuthentication) }

func testBasicAuthentication(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	o := options(t, "auth-type: basic", "auth-secret: users", "auth-realm: Staff only")
	o.Basic.Users = map[string]string{
		"sha": "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "bcrypt": "$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe",
		"plain": "secret",
	}
	f.route(o, server(t, echo))
	for _, c := range []struct {
		user, password string
		want           int
	}{
		{"sha", "secret", 200}, {"sha", "secret", 200}, {"sha", "Secret", 401}, {"bcrypt", "password", 200}, {"bcrypt", "x", 401},
		{"plain", "secret", 401}, {"nobody", "", 401}, {"", "", 401},
	} {
		req, _ := http.NewRequest("GET", "http://example.com/", nil)
		if c.user != "" {
			req.SetBasicAuth(c.user, c.password)
		}
		resp, err := f.client("http/1.1").Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		challenge := resp.Header.Get("Www-Authenticate")
		if resp.StatusCode != c.want || (challenge != "") != (c.want == 401) || c.want == 401 && !strings.Contains(challenge, `"Staff only"`) {
			t.Errorf("%s %s: %d %q", c.user, c.password, resp.StatusCode, challenge)
		}
	}
}

func TestExternalAuthentication(t *testing.T) { engines(t, testExternalAuthentication) }

func testExternalAuthentication(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	back := server(t, echo)
	var asked *http.Request
	judge := server(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r
		w.Header().Set("Set-Cookie", "session=1")
		switch r.Header.Get("Authorization") {
		case "good":
			w.Header().Set("X-User", "ann")
			w.WriteHeader(202)
		case "banned":
			w.WriteHeader(403)
		case "odd":
			w.WriteHeader(500)
		default:
			w.Header().Set("WWW-Authenticate", "Bearer")
			w.WriteHeader(401)
		}
	})
	for _, c := range []struct {
		url, signIn, token string
		want               int
		location           string
	}{
		{url: judge, token: "good", want: 200},
		{url: judge, token: "banned", want: 403},
		{url: judge, token: "odd", want: 503},
		{url: judge, token: "", want: 401},
		{url: judge, signIn: "https://$host/start", want: 302, location: "https://example.com/start?rd=http%3A%2F%2Fexample.com%2Fx%3Fy%3Dz"},
		{url: judge, signIn: "https://sso/start?rd=$escaped_request_uri", want: 302, location: "https://sso/start?rd=%2Fx%3Fy%3Dz"},
		{url: "127.0.0.1:1", token: "good", want: 503},
	} {
		lines := []string{"auth-url: http://" + c.url + "/verify", "auth-response-headers: X-User, X-Group"}
		if c.signIn != "" {
			lines = append(lines, "auth-signin: "+c.signIn)
		}
		f.route(options(t, lines...), back)
		status, h, body := f.get("GET /x?y=z", "Authorization: "+c.token, "X-User: forged", "X-Group: admin", "X_user: forged", "X-Original-Url: http://example.com/open")
		if status != c.want || h.Get("Location") != c.location {
			t.Errorf("%+v: %d %s", c, status, h.Get("Location"))
		}
		if status == 200 && (!strings.Contains(body, "X-User: ann\r\n") || strings.Contains(body, "forged") || strings.Contains(body, "X-Group") || h.Get("Set-Cookie") != "session=1") {
			t.Errorf("what the back end got:\n%s\nand the client: %v", body, h)
		}
		if c.url == judge && (asked.Method != "GET" || asked.Header.Get("X-Original-Url") != "http://example.com/x?y=z" || asked.Header.Get("X-Real-Ip") != "127.0.0.1") {
			t.Errorf("asked %s %v", asked.Method, asked.Header)
		}
	}
}

func TestAuthenticationServersAreNotOurselves(t *testing.T) {
	a := newAuthenticator()
	for _, url := range []string{"http://127.0.0.1:9/", "http://169.254.169.254/latest", "http://[::1]:9/", "http://[::ffff:127.0.0.1]:9/"} {
		if _, err := a.client.Get(url); err == nil || !strings.Contains(err.Error(), "no address of an authentication server") {
			t.Errorf("%s: %v", url, err)
		}
	}
}

func TestCORS(t *testing.T) { engines(t, testCORS) }

func testCORS(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	back := server(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "https://of-the-back-end")
	})
	some := []string{"enable-cors: true", "cors-allow-origin: https://a.com, https://*.b.com", "cors-allow-methods: GET, PUT", "cors-max-age: 60", "cors-expose-headers: X-B"}
	for _, c := range []struct {
		lines             []string
		method, origin    string
		status            int
		allowed, creds    string
		methods, exposed  string
		requestedByScript bool
	}{
		{lines: some, method: "GET", origin: "https://a.com", status: 200, allowed: "https://a.com", creds: "true", exposed: "X-B"},
		{lines: some, method: "GET", origin: "https://x.b.com", status: 200, allowed: "https://x.b.com", creds: "true", exposed: "X-B"},
		{lines: some, method: "GET", origin: "https://evil.com", status: 200},
		{lines: some, method: "GET", status: 200},
		{lines: some, method: "OPTIONS", origin: "https://a.com", requestedByScript: true, status: 204, allowed: "https://a.com", creds: "true", methods: "GET, PUT", exposed: "X-B"},
		{lines: some, method: "OPTIONS", origin: "https://evil.com", requestedByScript: true, status: 204},
		{lines: some, method: "OPTIONS", origin: "https://a.com", status: 200, allowed: "https://a.com", creds: "true", exposed: "X-B"},
		{lines: []string{"enable-cors: true", "cors-allow-credentials: false"}, method: "GET", origin: "https://any.com", status: 200, allowed: "*"},
	} {
		f.route(options(t, c.lines...), back)
		var headers []string
		if c.origin != "" {
			headers = append(headers, "Origin: "+c.origin)
		}
		if c.requestedByScript {
			headers = append(headers, "Access-Control-Request-Method: PUT")
		}
		status, h, _ := f.get(c.method+" /", headers...)
		if status != c.status || h.Get("Access-Control-Allow-Origin") != c.allowed || h.Get("Access-Control-Allow-Credentials") != c.creds ||
			h.Get("Access-Control-Allow-Methods") != c.methods || h.Get("Access-Control-Expose-Headers") != c.exposed {
			t.Errorf("%s from %q: %d %v", c.method, c.origin, status, h)
		}
	}
}

func TestAffinity(t *testing.T) { engines(t, testAffinity) }

func testAffinity(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	name := func(n string) string {
		return server(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte(n)) })
	}
	a, b, c := name("a"), name("b"), name("c")
	o := options(t, "affinity: cookie", "session-cookie-name: route", "session-cookie-max-age: 60", "session-cookie-samesite: Lax")
	f.route(o, a, b, c)
	_, h, first := f.get("GET /")
	set := h.Get("Set-Cookie")
	cookie, _, _ := strings.Cut(set, ";")
	for _, want := range []string{"route=", "; Path=/", "; Max-Age=60", "; HttpOnly", "; SameSite=Lax"} {
		if !strings.Contains(set, want) {
			t.Errorf("cookie %q lacks %q", set, want)
		}
	}
	if strings.Contains(set, "127.0.0.1") {
		t.Errorf("cookie %q tells an address", set)
	}
	for range 20 {
		if _, h, again := f.get("GET /", "Cookie: "+cookie); again != first || h.Get("Set-Cookie") != "" {
			t.Fatalf("from %s to %s, %v", first, again, h)
		}
	}
	// The endpoint goes: the client moves, and is told.
	var left []string
	for n, address := range map[string]string{"a": a, "b": b, "c": c} {
		if n != first {
			left = append(left, address)
		}
	}
	f.route(o, left...)
	if _, h, next := f.get("GET /", "Cookie: "+cookie); next == first || h.Get("Set-Cookie") == "" {
		t.Errorf("still %s, %v", next, h)
	}
	if _, h, _ := f.get("GET /", "Cookie: route=forged"); h.Get("Set-Cookie") == "" {
		t.Error("a forged cookie was kept")
	}
}

func TestPrefixesOfDifferentFamilies(t *testing.T) {
	v4, v6 := netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")
	if engine.Within([]netip.Prefix{v4}, netip.MustParseAddr("::1")) || engine.Within([]netip.Prefix{v6}, netip.MustParseAddr("127.0.0.1")) {
		t.Error("one family's range admits the other")
	}
}

func TestHSTS(t *testing.T) { engines(t, testHSTS) }

func testHSTS(t *testing.T, e engineName) {
	f := run(t, e, Config{})
	f.route(web.Options{HSTS: "max-age=60"}, server(t, echo))
	for protocol, want := range map[string]string{"http/1.1": "", "h2": "max-age=60"} {
		resp, err := f.client(protocol).Get(scheme(protocol) + "example.com/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Strict-Transport-Security"); got != want {
			t.Errorf("%s: %q", protocol, got)
		}
	}
}
