package proxy

import (
	"context"
	"io"
	"net/http"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/htpasswd"
	"poplin.dev/poplin/pkg/apply/proxy/judge"
	"poplin.dev/poplin/pkg/program/web"
)

// authenticator finds out whether a request may pass.
type authenticator struct {
	client    *http.Client
	passwords *htpasswd.Prover
}

func newAuthenticator() *authenticator {
	return &authenticator{client: judge.Client(), passwords: htpasswd.NewProver()}
}

// basic is RFC 7617. It reports whether the request may pass; if not, it has
// answered.
func (a *authenticator) basic(x *exchange, r *http.Request, b *web.BasicAuth) bool {
	user, password, given := r.BasicAuth()
	if hash, known := b.Users[user]; given && known && a.passwords.Proves(r.Context(), hash, password) {
		return true
	}
	x.challenge("a user name and password are needed", `Basic realm="`+b.Realm+`", charset="UTF-8"`)
	return false
}

// external asks another server. 2xx admits; 401 and 403 are passed on, or
// lead to the sign-in page; anything else, silence too, closes the door.
func (a *authenticator) external(x *exchange, r *http.Request, e *web.ExternalAuth) bool {
	ctx, cancel := context.WithTimeout(r.Context(), judge.Time)
	defer cancel()
	request := web.Request{Scheme: "http", Host: x.host, URI: x.uri(r), Method: r.Method}
	if x.caller.Secure {
		request.Scheme = "https"
	}
	resp, err := a.ask(ctx, x, r, e, request)
	if err != nil {
		x.p.Log.Warn("authentication server does not answer", "ingress", x.route.Ingress.String(), "error", err)
		x.fail(http.StatusServiceUnavailable, "the authentication server does not answer")
		return false
	}
	defer resp.Body.Close()
	for _, c := range resp.Header["Set-Cookie"] {
		x.Header().Add("Set-Cookie", c)
	}
	switch {
	case resp.StatusCode >= 200 && resp.StatusCode < 300:
		for _, name := range e.Headers {
			// Also when the answer has none: the client's own must not stand.
			r.Header.Del(name)
			if v := resp.Header.Values(name); len(v) > 0 {
				r.Header[http.CanonicalHeaderKey(name)] = v
			}
		}
		return true
	case resp.StatusCode == http.StatusUnauthorized && e.SignIn != nil:
		x.redirect(judge.SignIn(e.SignIn, request), http.StatusFound)
	case resp.StatusCode == http.StatusUnauthorized:
		x.challenge("you are not signed in", resp.Header.Values("Www-Authenticate")...)
	case resp.StatusCode == http.StatusForbidden:
		x.fail(http.StatusForbidden, "you are not admitted here")
	default:
		x.p.Log.Warn("authentication server answers neither yes nor no", "ingress", x.route.Ingress.String(), "status", resp.StatusCode)
		x.fail(http.StatusServiceUnavailable, "the authentication server does not answer")
	}
	return false
}

func (a *authenticator) ask(ctx context.Context, x *exchange, r *http.Request, e *web.ExternalAuth, request web.Request) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, e.URL.Fill(request), nil)
	if err != nil {
		return nil, err
	}
	q.Header = r.Header.Clone()
	header.RemoveHop(q.Header)
	for _, name := range []string{"Content-Length", "Content-Type", "Expect", "Range", "If-Match", "If-None-Match", "If-Modified-Since"} {
		q.Header.Del(name)
	}
	header.RemoveClaims(q.Header)
	header.Put(q.Header, x.introduce(r))
	q.Header.Set("X-Original-Url", request.Scheme+"://"+r.Host+request.URI)
	q.Header.Set("X-Original-Method", r.Method)
	q.Header.Set("X-Auth-Request-Redirect", request.URI)
	resp, err := a.client.Do(q)
	if err != nil {
		return nil, err
	}
	// Read a little, so that the connection can be used again.
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	return resp, nil
}
