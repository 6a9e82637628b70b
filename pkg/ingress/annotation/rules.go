package annotation

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/program/web"
)

// Rule reads one annotation.
type Rule struct {
	Name string
	// Alias is ingress-nginx's other name for it.
	Alias string
	// Own names exist under our prefix only.
	Own bool
	// Closed says that a value which cannot be read refuses all requests:
	// it decides who may enter, or which back end sees what.
	Closed   bool
	NoEffect bool
	// Means is what users are told of its value.
	Means string
	read  func(*reader, string) error
}

// Rules are all annotations that are read.
func Rules() []Rule { return slices.Clone(rules) }

// reader collects what several annotations say together.
type reader struct {
	Settings
	// compat says that the value stands under ingress-nginx's name.
	compat bool

	cors                 bool
	corsOrigin           string
	corsOptions          web.CORS
	affinity             bool
	cookie               web.Affinity
	authType, authRealm  string
	authURL, signIn      web.Template
	authHeaders          []string
	redirectCode         int
	verifyTLS            bool
	nginxHTTPS, insecure bool
}

var rules = []Rule{
	{Name: "ssl-redirect", Means: "`true` (default) or `false`: answer requests over HTTP with a redirect (308) to HTTPS, for hosts in `spec.tls`.",
		read: boolean(func(r *reader) *bool { return &r.SSLRedirect })},
	{Name: "force-ssl-redirect", Means: "`true` or `false` (default): redirect requests for hosts that are not in `spec.tls` too.",
		read: boolean(func(r *reader) *bool { return &r.ForceSSLRedirect })},
	{Name: "hsts", Own: true, Means: "`true` (one year), or `max-age=SECONDS`, perhaps with `; includeSubDomains` and `; preload`: the header Strict-Transport-Security of answers over HTTPS.",
		read: (*reader).hsts},
	{Name: "permanent-redirect", Closed: true, Means: "URL to which every request is redirected, with 301.",
		read: (*reader).permanentRedirect},
	{Name: "permanent-redirect-code", Closed: true, Means: "300 to 308: the status of `permanent-redirect`.",
		read: (*reader).permanentRedirectCode},
	{Name: "temporal-redirect", Closed: true, Means: "URL to which every request is redirected, with 302.",
		read: (*reader).temporalRedirect},

	{Name: "use-regex", Closed: true, Means: "`true` or `false`: paths of type ImplementationSpecific are regular expressions. Under nginx' prefix Prefix paths too, ignoring case.",
		read: (*reader).useRegex},
	{Name: "rewrite-target", Closed: true, Means: "Path that replaces the whole path, with `$1` to `$9` for groups of a regular expression. Under nginx' prefix it makes paths regular expressions.",
		read: (*reader).rewriteTarget},
	{Name: "upstream-vhost", Closed: true, Means: "The Host header that the back end gets.",
		read: (*reader).upstreamHost},

	{Name: "proxy-body-size", Closed: true, Means: "Bytes of a request's body at most, or with `k`, `m`, `g`; more is answered with 413. `0`, the default: no limit.",
		read: (*reader).bodySize},
	{Name: "proxy-connect-timeout", Means: "Seconds to connect to an endpoint; 5 by default.",
		read: seconds(func(r *reader) *duration { return &r.Connect })},
	{Name: "proxy-read-timeout", Means: "Seconds that an answer may be silent; 60 by default.",
		read: seconds(func(r *reader) *duration { return &r.Read })},
	{Name: "proxy-send-timeout", Means: "Seconds that an endpoint may take nothing of a request; that of `proxy-read-timeout` by default.",
		read: seconds(func(r *reader) *duration { return &r.Send })},
	// Bodies stream in both directions and headers have their own limits:
	// there is no buffer to tune.
	{Name: "proxy-buffering", NoEffect: true, Means: "`on` or `off`: bodies stream in either case.",
		read: onOff},
	{Name: "proxy-request-buffering", NoEffect: true, Means: "`on` or `off`: bodies stream in either case.",
		read: onOff},
	{Name: "proxy-buffer-size", NoEffect: true, Means: "Bytes: headers have limits of their own.",
		read: size},
	{Name: "enable-access-log", Means: "`true` (default) or `false`: log requests.",
		read: (*reader).accessLog},

	{Name: "backend-protocol", Closed: true, Means: "`HTTP` (default), `HTTPS`, `H2C`, `GRPC` or `GRPCS`.",
		read: (*reader).backendProtocol},
	{Name: "backend-tls-verify", Alias: "proxy-ssl-verify", Closed: true, Means: "`on` or `off`: verify the back end's certificate. On by default; under nginx' prefix off.",
		read: (*reader).backendVerify},
	{Name: "backend-ca-secret", Alias: "proxy-ssl-secret", Closed: true, Means: "Secret with `ca.crt`, by which the back end's certificate is verified.",
		read: secretName(func(r *reader) *string { return &r.BackendCA })},
	{Name: "backend-server-name", Alias: "proxy-ssl-name", Closed: true, Means: "The name in the back end's certificate, which is sent to it too; SERVICE.NAMESPACE.svc by default.",
		read: (*reader).backendServerName},

	{Name: "allowlist-source-range", Alias: "whitelist-source-range", Closed: true, Means: "Addresses and ranges whose requests are served, separated by commas; others get 403.",
		read: ranges(func(r *reader) *[]netip.Prefix { return &r.Allow })},
	{Name: "denylist-source-range", Closed: true, Means: "Addresses and ranges whose requests get 403.",
		read: ranges(func(r *reader) *[]netip.Prefix { return &r.Deny })},
	{Name: "auth-type", Closed: true, Means: "`basic`: requests need a name and a password of `auth-secret`.",
		read: (*reader).setAuthType},
	{Name: "auth-secret", Closed: true, Means: "Secret with htpasswd lines (bcrypt, apr1, SHA) under its key `auth`.",
		read: secretName(func(r *reader) *string { return &r.AuthSecret })},
	{Name: "auth-secret-type", Closed: true, Means: "`auth-file` (default), or `auth-map`: each key of the Secret is a user.",
		read: (*reader).authSecretType},
	{Name: "auth-realm", Means: "What browsers show when they ask for the password.",
		read: (*reader).setAuthRealm},
	{Name: "auth-url", Closed: true, Means: "URL that is asked about each request, which is served where the answer is 2xx. Variables are `$host`, `$scheme`, `$request_uri`, `$escaped_request_uri`, `$request_method`.",
		read: (*reader).setAuthURL},
	{Name: "auth-signin", Closed: true, Means: "URL to which requests that `auth-url` refuses with 401 are redirected; the same variables.",
		read: (*reader).authSignIn},
	{Name: "auth-response-headers", Closed: true, Means: "Headers of the answer of `auth-url` that the back end gets, separated by commas.",
		read: (*reader).authResponseHeaders},

	{Name: "enable-cors", Means: "`true` or `false`: answer preflight requests, and allow other origins' scripts to read answers.",
		read: (*reader).enableCORS},
	{Name: "cors-allow-origin", Closed: true, Means: "Origins, separated by commas; `*` in place of a host's first label is any. All by default.",
		read: (*reader).corsAllowOrigin},
	{Name: "cors-allow-methods", Means: "Methods; GET, PUT, POST, DELETE, PATCH, OPTIONS by default.",
		read: tokens(func(r *reader) *string { return &r.corsOptions.Methods })},
	{Name: "cors-allow-headers", Means: "Headers that scripts may send; DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization by default.",
		read: tokens(func(r *reader) *string { return &r.corsOptions.Headers })},
	{Name: "cors-expose-headers", Means: "Headers of answers that scripts may read; none by default.",
		read: tokens(func(r *reader) *string { return &r.corsOptions.Expose })},
	{Name: "cors-allow-credentials", Means: "`true` or `false`: let scripts send cookies. Off by default; under nginx' prefix on.",
		read: (*reader).corsCredentials},
	{Name: "cors-max-age", Means: "Seconds for which a preflight's answer holds; 1728000 by default.",
		read: count(func(r *reader) *int { return &r.corsOptions.MaxAgeSeconds })},

	{Name: "affinity", Means: "`cookie`: a client's requests go to the endpoint that its cookie names.",
		read: (*reader).setAffinity},
	{Name: "affinity-mode", Means: "`balanced` or `persistent`: a client stays with its endpoint in either case.",
		read: (*reader).affinityMode},
	{Name: "session-cookie-name", Means: "The cookie's name; `INGRESSCOOKIE` by default.",
		read: (*reader).cookieName},
	{Name: "session-cookie-path", Means: "The cookie's path.",
		read: (*reader).cookiePath},
	{Name: "session-cookie-domain", Means: "The cookie's domain.",
		read: (*reader).cookieDomain},
	{Name: "session-cookie-max-age", Alias: "session-cookie-expires", Means: "Seconds for which browsers keep the cookie; until they end by default.",
		read: count(func(r *reader) *int { return &r.cookie.MaxAge })},
	{Name: "session-cookie-samesite", Means: "`None`, `Lax` or `Strict`.",
		read: (*reader).cookieSameSite},
	{Name: "session-cookie-secure", Means: "`true` or `false`: browsers send the cookie over HTTPS alone.",
		read: boolean(func(r *reader) *bool { return &r.cookie.Secure })},
	{Name: "session-cookie-change-on-failure", Means: "`true` or `false`: after a failure the cookie names the endpoint that answered.",
		read: boolean(func(r *reader) *bool { return &r.cookie.Move })},
}

// finish ties together what several annotations say.
func (r *reader) finish() *Problem {
	if r.cors {
		c := r.corsOptions
		if err := parseOrigins(&c, r.corsOrigin); err != nil {
			return &Problem{Key: Prefix + "cors-allow-origin", Value: r.corsOrigin, Text: err.Error(), Closed: true}
		}
		r.CORS = withDefaults(c)
	}
	if r.affinity {
		c := r.cookie
		if c.Cookie == "" {
			c.Cookie = "INGRESSCOOKIE"
		}
		r.Affinity = &c
	}
	// ingress-nginx verifies a back end only where it is told to.
	r.Upstream.Insecure = r.insecure || r.nginxHTTPS && !r.verifyTLS
	if r.redirectCode != 0 && r.Redirect.To != "" && r.Redirect.Code == 301 {
		r.Redirect.Code = r.redirectCode
	}
	if r.authURL != nil {
		r.External = &web.ExternalAuth{URL: r.authURL, SignIn: r.signIn, Headers: r.authHeaders}
	}
	return r.finishBasic()
}

func (r *reader) finishBasic() *Problem {
	switch {
	case r.authType == "" && r.AuthSecret == "":
		return nil
	case r.authType == "":
		return &Problem{Key: Prefix + "auth-type", Text: "is missing beside auth-secret: write basic", Closed: true}
	case r.AuthSecret == "":
		return &Problem{Key: Prefix + "auth-secret", Text: "is missing beside auth-type: name a Secret with htpasswd lines under its key auth", Closed: true}
	}
	realm := r.authRealm
	if realm == "" {
		realm = "Authentication Required"
	}
	r.Basic = &web.BasicAuth{Realm: realm}
	return nil
}

func (r *reader) useRegex(v string) error {
	on, err := parseBool(v)
	if err != nil {
		return err
	}
	r.Regexp = r.Regexp || on
	r.RegexpAll = r.RegexpAll || on && r.compat
	return nil
}

func (r *reader) rewriteTarget(v string) error {
	switch {
	case v == "":
		return errors.New("is empty: write the path to forward, such as /$1")
	case v[0] != '/' && v[0] != '$':
		return errors.New("is no path: begin it with /")
	case strings.ContainsAny(v, "?# \t\r\n{}"):
		return errors.New("has more than a path: arguments pass through by themselves")
	}
	for i := 0; i < len(v); i++ {
		if v[i] == '$' && (i+1 == len(v) || v[i+1] < '1' || v[i+1] > '9') {
			return errors.New("uses a variable: only the groups $1 to $9 of the path are known")
		}
	}
	r.Rewrite = v
	// With ingress-nginx a rewrite makes every path a regular expression.
	r.RegexpAll = r.RegexpAll || r.compat
	r.Regexp = true
	return nil
}

func (r *reader) upstreamHost(v string) error {
	if _, ok := web.HostName(v); !ok {
		return errors.New("is no host name")
	}
	r.Upstream.Host = v
	return nil
}

func (r *reader) bodySize(v string) (err error) {
	r.BodyLimit, err = parseSize(v)
	return err
}

func (r *reader) accessLog(v string) error {
	on, err := parseBool(v)
	r.NoAccessLog = err == nil && !on
	return err
}

func (r *reader) backendProtocol(v string) error {
	protocols := map[string]web.Protocol{"HTTP": web.HTTP, "HTTPS": web.HTTPS, "H2C": web.H2C, "GRPC": web.H2C, "GRPCS": web.H2}
	p, known := protocols[strings.ToUpper(v)]
	if !known {
		return errors.New("is not supported: write HTTP, HTTPS, H2C, GRPC or GRPCS")
	}
	r.Upstream.Protocol = p
	r.nginxHTTPS = r.compat && p.TLS()
	return nil
}

func (r *reader) backendVerify(v string) error {
	on, err := parseSwitch(v)
	r.verifyTLS, r.insecure = on, err == nil && !on
	return err
}

func (r *reader) backendServerName(v string) error {
	name, ok := web.HostName(v)
	if !ok || name != strings.ToLower(v) {
		return errors.New("is no host name")
	}
	r.Upstream.ServerName = name
	return nil
}

func (r *reader) hsts(v string) error {
	switch v {
	case "true":
		v = "max-age=31536000"
	case "false":
		return nil
	}
	for i, part := range strings.Split(v, ";") {
		part = strings.TrimSpace(part)
		age, isAge := strings.CutPrefix(part, "max-age=")
		_, err := parseCount(age)
		if ok := i == 0 && isAge && err == nil || i > 0 && (part == "includeSubDomains" || part == "preload"); !ok {
			return errors.New("is not understood: write true, or max-age=SECONDS, perhaps with ; includeSubDomains and ; preload")
		}
	}
	r.HSTS = v
	return nil
}

func (r *reader) permanentRedirect(v string) error { return r.redirect(v, 301) }
func (r *reader) temporalRedirect(v string) error  { return r.redirect(v, 302) }

func (r *reader) redirect(v string, code int) error {
	u, err := url.Parse(v)
	if err != nil || u.Host != "" && u.Scheme != "http" && u.Scheme != "https" || u.Host == "" && (!strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//")) {
		return errors.New("is no URL: write https://HOST/PATH or /PATH")
	}
	r.Redirect = web.Redirect{To: u.String(), Code: code}
	return nil
}

func (r *reader) permanentRedirectCode(v string) error {
	n, err := parseCount(v)
	if err != nil || n < 300 || n > 308 {
		return errors.New("is no redirect: write a number of 300 to 308")
	}
	r.redirectCode = n
	return nil
}

func (r *reader) setAuthType(v string) error {
	if v != "basic" {
		return errors.New("is not supported: write basic")
	}
	r.authType = v
	return nil
}

func (r *reader) authSecretType(v string) error {
	switch v {
	case "auth-file":
	case "auth-map":
		r.AuthMap = true
	default:
		return errors.New("is not understood: write auth-file or auth-map")
	}
	return nil
}

func (r *reader) setAuthRealm(v string) error {
	if strings.ContainsAny(v, "\"\\\r\n") {
		return errors.New("has a quote, backslash or line break: leave them out")
	}
	r.authRealm = v
	return nil
}

func (r *reader) setAuthURL(v string) error {
	t, err := urlTemplate(v)
	if err != nil {
		return err
	}
	r.authURL = t
	return nil
}

func (r *reader) authSignIn(v string) error {
	t, err := urlTemplate(v)
	r.signIn = t
	return err
}

// urlTemplate reads a URL with variables. Scheme and host must be clear of
// everything a client chooses but the host that was routed by.
func urlTemplate(v string) (web.Template, error) {
	t, err := web.ParseTemplate(v)
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(t.Fill(web.Request{Scheme: "https", Host: "host.invalid", Method: "GET", URI: "/"}))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return nil, fmt.Errorf("is no URL: write https://HOST/PATH")
	}
	return t, nil
}

func (r *reader) authResponseHeaders(v string) error {
	list, err := parseTokens(v)
	r.authHeaders = list
	return err
}
