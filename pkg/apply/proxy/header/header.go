// Package header knows which headers end at a proxy and which begin there.
// Input is a header; output is the same one without what was meant for this
// hop alone or could be taken for our word, and the text of a few headers of
// ours. It refuses nothing: what it does not know passes.
package header

import (
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strings"

	"poplin.dev/poplin/pkg/program/web"
)

// hop are the headers of one hop (RFC 9110, section 7.6.1), old ones too.
var hop = []string{
	"Connection", "Proxy-Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authorization", "Te", "Trailer", "Transfer-Encoding", "Upgrade",
}

// RemoveHop removes the headers of this hop, and those that Connection names.
func RemoveHop(h http.Header) {
	for _, line := range h["Connection"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = strings.TrimSpace(name); name != "" {
				h.Del(name)
			}
		}
	}
	for _, name := range hop {
		delete(h, name)
	}
}

// claims say who the client is or what it asked for in words we do not
// speak, or become an environment variable of some servers (httpoxy).
var claims = []string{"Forwarded", "Proxy", "Http2-Settings", "X-Original-Url", "X-Rewrite-Url", "X-Original-Forwarded-For", "X-Forwarded-Prefix"}

// RemoveClaims removes what a back end could take for our word.
func RemoveClaims(h http.Header) {
	for name := range h {
		// CGI-like servers read X_Real_IP as X-Real-IP; nginx drops such
		// names too.
		if strings.IndexByte(name, '_') >= 0 {
			delete(h, name)
		}
	}
	for _, name := range claims {
		delete(h, name)
	}
}

// Field is one line of a header.
type Field struct{ Name, Value string }

// Put sets fields, in place of what a header has under their names.
func Put(h http.Header, fields []Field) {
	for _, f := range fields {
		h[f.Name] = []string{f.Value}
	}
}

// ID names a request: as the client did, if that is fit for logs.
func ID(given string) string {
	if len(given) > 0 && len(given) <= 128 && strings.Trim(given, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.:+/=") == "" {
		return given
	}
	var b [16]byte
	binary.NativeEndian.PutUint64(b[:], rand.Uint64())
	binary.NativeEndian.PutUint64(b[8:], rand.Uint64())
	return hex.EncodeToString(b[:])
}

// Cookie is the header that keeps a client with its endpoint.
func Cookie(a *web.Affinity, id string, secure bool) string {
	c := http.Cookie{
		Name: a.Cookie, Value: id, Path: a.Path, Domain: strings.TrimPrefix(a.Domain, "."),
		MaxAge: a.MaxAge, HttpOnly: true, Secure: a.Secure || secure,
	}
	if c.Path == "" {
		c.Path = "/"
	}
	switch a.SameSite {
	case "none":
		// Browsers want Secure with it, else they drop the cookie.
		if c.Secure {
			c.SameSite = http.SameSiteNoneMode
		}
	case "lax":
		c.SameSite = http.SameSiteLaxMode
	case "strict":
		c.SameSite = http.SameSiteStrictMode
	}
	return c.String()
}
