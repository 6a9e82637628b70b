package header

import (
	"net/http"
	"reflect"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/program/web"
)

func TestRemove(t *testing.T) {
	h := http.Header{
		"Connection": {"close, X-Hop", "x-other ,"}, "X-Hop": {"1"}, "X-Other": {"1"}, "Keep-Alive": {"5"}, "Te": {"gzip"}, "Upgrade": {"h2c"},
		"Proxy": {"evil"}, "Forwarded": {"for=1"}, "X_real_ip": {"1"}, "X-Kept": {"1"}, "Accept": {"*/*"},
	}
	RemoveHop(h)
	RemoveClaims(h)
	if want := (http.Header{"X-Kept": {"1"}, "Accept": {"*/*"}}); !reflect.DeepEqual(h, want) {
		t.Errorf("%v", h)
	}
}

func TestRequestID(t *testing.T) {
	for given, kept := range map[string]bool{"abc-1.2_3:4+5/6=": true, "": false, "a b": false, "a\"": false, strings.Repeat("x", 129): false} {
		got := ID(given)
		if (got == given) != kept || got == "" {
			t.Errorf("%q: %q", given, got)
		}
	}
	one, two := ID(""), ID("")
	if one == two {
		t.Error("two requests with one id")
	}
}

func TestCookie(t *testing.T) {
	for want, a := range map[string]web.Affinity{
		"c=1; Path=/; HttpOnly": {Cookie: "c"},
		"c=1; Path=/x; Domain=a.com; Max-Age=5; HttpOnly; SameSite=Strict": {Cookie: "c", Path: "/x", Domain: ".a.com", MaxAge: 5, SameSite: "strict"},
		"c=1; Path=/; HttpOnly; Secure; SameSite=None":                     {Cookie: "c", SameSite: "none", Secure: true},
	} {
		if got := Cookie(&a, "1", false); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	// Browsers drop SameSite=None on a cookie that is not Secure.
	if got := Cookie(&web.Affinity{Cookie: "c", SameSite: "none"}, "1", false); strings.Contains(got, "SameSite") {
		t.Error(got)
	}
}
