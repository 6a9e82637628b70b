package ingress

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/ingress/annotation"
	"poplin.dev/poplin/pkg/program/web"
)

// acmeChallenge is where certificate authorities look (RFC 8555, section
// 8.3): they come by plain HTTP and cannot log in.
const acmeChallenge = "/.well-known/acme-challenge"

// claim is what one Ingress asks for, before others are looked at.
type claim struct {
	*cluster.Ingress
	settings annotation.Settings
	// plain are the options, secured those of hosts with TLS, challenge
	// those of paths below acmeChallenge.
	plain, secured, challenge *web.Options

	hosts    []string
	secrets  []cluster.ObjectName
	backends []web.BackendID
	findings []Finding
}

func (cl *claim) warn(why reason.Reason, format string, args ...any) {
	cl.findings = append(cl.findings, Finding{why, fmt.Sprintf(format, args...)})
}

// claim reads one Ingress.
func (c *Compiler) claim(i *cluster.Ingress) *claim {
	cl := &claim{Ingress: i}
	settings, problems := annotation.Read(i.Annotations)
	cl.settings = settings
	for _, p := range problems {
		text := p.String()
		if p.Closed {
			text += "; until then every request is refused"
		}
		cl.warn(reason.InvalidAnnotation, "%s", text)
	}
	c.resolve(cl)
	if s := cl.settings; s.Upstream.Protocol.TLS() && s.Upstream.Insecure {
		cl.findings = append(cl.findings, Finding{reason.BackendNotVerified,
			"the back end's certificate is not verified: name its CA in " + annotation.Prefix + "backend-ca-secret and set backend-tls-verify"})
	}
	options := cl.settings.Options
	options.ToHTTPS = cl.settings.ForceSSLRedirect
	cl.plain = &options
	secured := options
	secured.ToHTTPS = options.ToHTTPS || cl.settings.SSLRedirect
	cl.secured = &secured
	challenge := options
	challenge.ToHTTPS, challenge.Basic, challenge.External = false, nil, nil
	cl.challenge = &challenge

	cl.collect(c)
	return cl
}

// collect lists the hosts, Secrets and back ends that the Ingress names.
func (cl *claim) collect(c *Compiler) {
	host := func(h string) {
		if !slices.Contains(cl.hosts, h) {
			cl.hosts = append(cl.hosts, h)
		}
	}
	backend := func(b cluster.IngressBackend) {
		if id, ok := cl.backend(b); ok && !slices.Contains(cl.backends, id) {
			cl.backends = append(cl.backends, id)
		}
	}
	if cl.Default != nil {
		host("")
		backend(*cl.Default)
		cl.noteResource("spec.defaultBackend", *cl.Default)
	}
	for i, r := range cl.Rules {
		if err := checkHost(r.Host); err != "" {
			cl.warn(reason.InvalidHost, "spec.rules[%d].host: %q %s", i, r.Host, err)
			continue
		}
		host(r.Host)
		for j, p := range r.Paths {
			backend(p.Backend)
			cl.noteResource(fmt.Sprintf("spec.rules[%d].http.paths[%d].backend", i, j), p.Backend)
		}
	}
	for _, t := range cl.TLS {
		for _, h := range t.Hosts {
			host(h)
		}
		if t.Secret != "" {
			cl.refer(cluster.ObjectName{Namespace: cl.Namespace, Name: t.Secret})
		}
	}
}

func (cl *claim) noteResource(field string, b cluster.IngressBackend) {
	if b.Resource != "" {
		cl.warn(reason.UnsupportedBackend, "%s.resource: %s is no Service: the path is not served", field, b.Resource)
	}
}

func (cl *claim) refer(n cluster.ObjectName) {
	if !slices.Contains(cl.secrets, n) {
		cl.secrets = append(cl.secrets, n)
	}
}

// backend names a back end; it reports false for what is no Service.
func (cl *claim) backend(b cluster.IngressBackend) (web.BackendID, bool) {
	if b.Service == "" || b.Resource != "" {
		return web.BackendID{}, false
	}
	port := b.PortName
	if b.Port != 0 {
		port = strconv.Itoa(int(b.Port))
	}
	return web.BackendID{Service: cluster.ObjectName{Namespace: cl.Namespace, Name: b.Service}, Port: port}, true
}

// optionsFor are the options of a path of a host.
func (cl *claim) optionsFor(host, path string) *web.Options {
	switch {
	case path == acmeChallenge || strings.HasPrefix(path, acmeChallenge+"/"):
		return cl.challenge
	case cl.hasTLS(host):
		return cl.secured
	}
	return cl.plain
}

// hasTLS reports whether spec.tls covers a host; an entry without hosts
// covers all of them.
func (cl *claim) hasTLS(host string) bool {
	return slices.ContainsFunc(cl.TLS, func(t cluster.IngressTLS) bool {
		return len(t.Hosts) == 0 || slices.Contains(t.Hosts, host) || host != "" && slices.Contains(t.Hosts, web.Wildcard(host))
	})
}

// secretsFor are the Secrets that spec.tls names for exactly this host.
func (cl *claim) secretsFor(host string) []string {
	var list []string
	for _, t := range cl.TLS {
		named := slices.Contains(t.Hosts, host)
		implied := len(t.Hosts) == 0 && slices.ContainsFunc(cl.Rules, func(r cluster.IngressRule) bool { return r.Host == host })
		if t.Secret != "" && (named || implied) {
			list = append(list, t.Secret)
		}
	}
	return list
}

// checkHost is what the API server holds hosts to; a program must not rest
// on it.
func checkHost(h string) string {
	rest, wild := strings.CutPrefix(h, "*.")
	switch name, ok := web.HostName(rest); {
	case h == "":
	case !ok, name != rest, strings.ContainsAny(rest, "*:["), wild && !strings.Contains(rest, "."):
		return "is no host name: write a DNS name in lower case, perhaps with *. in front"
	}
	return ""
}
