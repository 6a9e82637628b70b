package ingress

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/program/web"
)

// maxPattern bounds a regular expression. RE2 matches in linear time, but its
// program grows with the text.
const maxPattern = 1000

// hostCompiler merges the claims on one host.
type hostCompiler struct {
	host     web.Host
	findings map[cluster.ObjectName][]Finding
	// hasDefault says that the default is of an Ingress without rules.
	hasDefault bool
}

// compileHost makes one host's routes and certificate from the claims on it,
// oldest first.
func (c *Compiler) compileHost(p *web.Program, name string, now time.Time) {
	for n := range c.hostFindings[name] {
		c.report[n] = true
	}
	h := hostCompiler{host: web.Host{
		Name: name, Exact: map[string]*web.Route{}, Prefix: map[string]*web.Route{},
	}, findings: map[cluster.ObjectName][]Finding{}}

	claims := c.claimsOf(name, &h)
	claimed := false
	for _, cl := range claims {
		claimed = h.add(cl, name) || claimed
	}
	if claimed {
		h.finish()
		p.Hosts[name] = &h.host
	} else {
		delete(p.Hosts, name)
	}
	if cert := c.certificateFor(name, claims, now, &h); cert != nil {
		p.Certificates[name] = cert
	} else {
		delete(p.Certificates, name)
	}
	c.hostFindings[name] = h.findings
	if len(h.findings) == 0 {
		delete(c.hostFindings, name)
	}
	for n := range h.findings {
		c.report[n] = true
	}
}

// claimsOf are the claims on a host in order of age. With
// OneNamespacePerHost those of other namespaces than the oldest's are
// refused; that is for hosts with a name, which have an owner.
func (c *Compiler) claimsOf(name string, h *hostCompiler) []*claim {
	var claims []*claim
	for n := range c.byHost[name] {
		claims = append(claims, c.claims[n])
	}
	slices.SortFunc(claims, func(a, b *claim) int {
		return cmp.Or(a.Created.Compare(b.Created), a.ObjectName.Compare(b.ObjectName))
	})
	if !c.cfg.OneNamespacePerHost || name == "" || len(claims) == 0 {
		return claims
	}
	owner := claims[0]
	return slices.DeleteFunc(claims, func(cl *claim) bool {
		if cl.Namespace == owner.Namespace {
			return false
		}
		h.warn(cl, reason.HostTaken, "host %s belongs to namespace %s: Ingress %s is older", name, owner.Namespace, owner.ObjectName)
		return true
	})
}

func (h *hostCompiler) warn(cl *claim, why reason.Reason, format string, args ...any) {
	h.findings[cl.ObjectName] = append(h.findings[cl.ObjectName], Finding{why, fmt.Sprintf(format, args...)})
}

// add takes one Ingress' rules for the host, and reports whether it has any.
func (h *hostCompiler) add(cl *claim, name string) (claimed bool) {
	for _, r := range cl.Rules {
		if r.Host != name {
			continue
		}
		claimed = true
		for _, p := range r.Paths {
			if id, ok := cl.backend(p.Backend); ok {
				h.addPath(cl, p, id)
			}
		}
	}
	if cl.Default != nil && (claimed || name == "") {
		claimed = h.addDefault(cl, len(cl.Rules) == 0) || claimed
	}
	return claimed
}

// addDefault offers an Ingress' default backend. For requests of any host
// those of Ingresses without rules come first, they ask for nothing else.
func (h *hostCompiler) addDefault(cl *claim, only bool) bool {
	id, ok := cl.backend(*cl.Default)
	if !ok {
		return false
	}
	now := h.host.Default
	switch {
	case now == nil, only && !h.hasDefault:
		h.host.Default = &web.Route{
			Ingress: cl.ObjectName, Host: h.host.Name, Type: cluster.PathPrefix, Backend: id,
			Options: cl.optionsFor(h.host.Name, ""),
		}
		h.hasDefault = only
	case only:
		h.warn(cl, reason.Conflict, "spec.defaultBackend: Ingress %s is older and has the default backend of all hosts", now.Ingress)
	}
	return true
}

func (h *hostCompiler) addPath(cl *claim, p cluster.IngressPath, id web.BackendID) {
	text := p.Path
	if text == "" {
		text = "/"
	}
	r := &web.Route{
		Ingress: cl.ObjectName, Host: h.host.Name, Path: text, Type: p.Type, Backend: id,
		Options: cl.optionsFor(h.host.Name, text), Rewrite: cl.settings.Rewrite,
	}
	if why := h.notServable(cl, r); why != "" {
		h.warn(cl, reason.InvalidAnnotation, "%s", why)
		closed := *r.Options
		closed.Closed = why
		r.Options = &closed
	}
	if cl.isRegexp(p.Type) {
		h.addRegexp(cl, r)
		return
	}
	clean, err := web.Clean(text)
	if err != nil {
		h.warn(cl, reason.InvalidPath, "host %q, path %q: %v", h.host.Name, text, err)
		return
	}
	if strings.Contains(r.Rewrite, "$") {
		h.warn(cl, reason.InvalidAnnotation, "rewrite-target: %q uses groups, but path %q is no regular expression: set its pathType to ImplementationSpecific", r.Rewrite, text)
		return
	}
	routes, key := h.host.Prefix, web.PrefixKey(clean)
	if p.Type == cluster.PathExact {
		routes, key = h.host.Exact, clean
	}
	switch now := routes[key]; {
	case now == nil, longer(clean, now.Path):
		routes[key] = r
	default:
		h.conflict(cl, r, now)
	}
}

// notServable is why a route must stay closed though its parts are valid.
func (h *hostCompiler) notServable(cl *claim, r *web.Route) string {
	if e := r.External; e != nil && h.host.Name == "" && (hostVariable(e.URL) || hostVariable(e.SignIn)) {
		return "annotation auth-url: $host is whatever a client sends, because the rule names no host: write the authentication server's name"
	}
	return ""
}

func hostVariable(t web.Template) bool { return t.Uses(web.VarHost) }

// longer reports whether a prefix ends in a slash where another, equal but
// for that, does not: the API gives it precedence. Spelling alone, such as an
// escape, must not win a path from its older owner.
func longer(clean, other string) bool {
	o, err := web.Clean(other)
	return err == nil && len(clean) > len(o)
}

func (h *hostCompiler) conflict(cl *claim, r, now *web.Route) {
	switch {
	case now.Ingress != cl.ObjectName:
		h.warn(cl, reason.Conflict, "host %q, path %q (%s): Ingress %s is older and has it", h.host.Name, r.Path, r.Type, now.Ingress)
	case now.Path == r.Path && now.Backend != r.Backend:
		h.warn(cl, reason.Conflict, "host %q, path %q (%s): stands twice; the first one counts", h.host.Name, r.Path, r.Type)
	}
}

func (cl *claim) isRegexp(t cluster.PathType) bool {
	return cl.settings.Regexp && t == cluster.PathOther || cl.settings.RegexpAll && t != cluster.PathExact
}

func (h *hostCompiler) addRegexp(cl *claim, r *web.Route) {
	flags := ""
	if cl.settings.RegexpAll {
		flags = "(?i)"
	}
	pattern, err := regexp.Compile(flags + "^(?:" + r.Path + ")")
	switch {
	case len(r.Path) > maxPattern:
		h.warn(cl, reason.InvalidPath, "host %q: a regular expression of %d bytes, at most %d", h.host.Name, len(r.Path), maxPattern)
		return
	case err != nil:
		h.warn(cl, reason.InvalidPath, "host %q, path %q: %v (RE2 syntax, without look-around)", h.host.Name, r.Path, err)
		return
	case missingGroup(r.Rewrite, pattern.NumSubexp()):
		h.warn(cl, reason.InvalidAnnotation, "rewrite-target: %q uses a group that path %q does not have", r.Rewrite, r.Path)
		return
	}
	r.Match = pattern
	same := slices.IndexFunc(h.host.Regexp, func(o *web.Route) bool { return o.Path == r.Path })
	if same >= 0 {
		h.conflict(cl, r, h.host.Regexp[same])
		return
	}
	h.host.Regexp = append(h.host.Regexp, r)
}

// missingGroup reports whether a rewrite names a group past the last one.
func missingGroup(rewrite string, groups int) bool {
	for i := 0; i+1 < len(rewrite); i++ {
		if rewrite[i] == '$' && int(rewrite[i+1]-'0') > groups {
			return true
		}
	}
	return false
}

// finish orders what was gathered.
func (h *hostCompiler) finish() {
	slices.SortStableFunc(h.host.Regexp, func(a, b *web.Route) int { return len(b.Path) - len(a.Path) })
	for key := range h.host.Prefix {
		h.host.Depth = max(h.host.Depth, web.Depth(key))
	}
}
