package annotation

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"poplin.dev/poplin/pkg/program/web"
)

// rule reads one annotation.
type rule struct {
	name string
	// alias is ingress-nginx's other name for it.
	alias string
	// own names exist under our prefix only.
	own bool
	// closed says that a value which cannot be read refuses all requests:
	// it decides who may enter, or which back end sees what.
	closed   bool
	noEffect bool
	read     func(*reader, string) error
}

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

var rules = []rule{
	{name: "ssl-redirect", read: boolean(func(r *reader) *bool { return &r.SSLRedirect })},
	{name: "force-ssl-redirect", read: boolean(func(r *reader) *bool { return &r.ForceSSLRedirect })},
	{name: "hsts", own: true, read: (*reader).hsts},
	{name: "permanent-redirect", closed: true, read: (*reader).permanentRedirect},
	{name: "permanent-redirect-code", closed: true, read: (*reader).permanentRedirectCode},
	{name: "temporal-redirect", closed: true, read: (*reader).temporalRedirect},

	{name: "use-regex", closed: true, read: (*reader).useRegex},
	{name: "rewrite-target", closed: true, read: (*reader).rewriteTarget},
	{name: "upstream-vhost", closed: true, read: (*reader).upstreamHost},

	{name: "proxy-body-size", closed: true, read: (*reader).bodySize},
	{name: "proxy-connect-timeout", read: seconds(func(r *reader) *duration { return &r.Connect })},
	{name: "proxy-read-timeout", read: seconds(func(r *reader) *duration { return &r.Read })},
	{name: "proxy-send-timeout", read: seconds(func(r *reader) *duration { return &r.Send })},
	// Bodies stream in both directions and headers have their own limits:
	// there is no buffer to tune.
	{name: "proxy-buffering", noEffect: true, read: onOff},
	{name: "proxy-request-buffering", noEffect: true, read: onOff},
	{name: "proxy-buffer-size", noEffect: true, read: size},
	{name: "enable-access-log", read: (*reader).accessLog},

	{name: "backend-protocol", closed: true, read: (*reader).backendProtocol},
	{name: "backend-tls-verify", alias: "proxy-ssl-verify", closed: true, read: (*reader).backendVerify},
	{name: "backend-ca-secret", alias: "proxy-ssl-secret", closed: true, read: secretName(func(r *reader) *string { return &r.BackendCA })},
	{name: "backend-server-name", alias: "proxy-ssl-name", closed: true, read: (*reader).backendServerName},

	{name: "allowlist-source-range", alias: "whitelist-source-range", closed: true, read: ranges(func(r *reader) *[]netip.Prefix { return &r.Allow })},
	{name: "denylist-source-range", closed: true, read: ranges(func(r *reader) *[]netip.Prefix { return &r.Deny })},
	{name: "auth-type", closed: true, read: (*reader).setAuthType},
	{name: "auth-secret", closed: true, read: secretName(func(r *reader) *string { return &r.AuthSecret })},
	{name: "auth-secret-type", closed: true, read: (*reader).authSecretType},
	{name: "auth-realm", read: (*reader).setAuthRealm},
	{name: "auth-url", closed: true, read: (*reader).setAuthURL},
	{name: "auth-signin", closed: true, read: (*reader).authSignIn},
	{name: "auth-response-headers", closed: true, read: (*reader).authResponseHeaders},

	{name: "enable-cors", read: (*reader).enableCORS},
	{name: "cors-allow-origin", closed: true, read: (*reader).corsAllowOrigin},
	{name: "cors-allow-methods", read: tokens(func(r *reader) *string { return &r.corsOptions.Methods })},
	{name: "cors-allow-headers", read: tokens(func(r *reader) *string { return &r.corsOptions.Headers })},
	{name: "cors-expose-headers", read: tokens(func(r *reader) *string { return &r.corsOptions.Expose })},
	{name: "cors-allow-credentials", read: (*reader).corsCredentials},
	{name: "cors-max-age", read: count(func(r *reader) *int { return &r.corsOptions.MaxAgeSeconds })},

	{name: "affinity", read: (*reader).setAffinity},
	{name: "affinity-mode", read: (*reader).affinityMode},
	{name: "session-cookie-name", read: (*reader).cookieName},
	{name: "session-cookie-path", read: (*reader).cookiePath},
	{name: "session-cookie-domain", read: (*reader).cookieDomain},
	{name: "session-cookie-max-age", alias: "session-cookie-expires", read: count(func(r *reader) *int { return &r.cookie.MaxAge })},
	{name: "session-cookie-samesite", read: (*reader).cookieSameSite},
	{name: "session-cookie-secure", read: boolean(func(r *reader) *bool { return &r.cookie.Secure })},
	{name: "session-cookie-change-on-failure", read: boolean(func(r *reader) *bool { return &r.cookie.Move })},
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
