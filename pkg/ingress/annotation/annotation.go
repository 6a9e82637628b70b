// Package annotation reads the annotations of an Ingress. Input is the map of
// annotations; outputs are typed settings and a list of problems. Poplin's own
// names stand under ingress.poplin.dev/; those of ingress-nginx that most
// people use are read under nginx.ingress.kubernetes.io/ with the meaning they
// have there. It refuses text that would be evaluated (snippets), and a
// mistake about who may enter closes the Ingress rather than opening it.
package annotation

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/program/web"
)

// The prefixes that are read.
const (
	Prefix = "ingress.poplin.dev/"
	Nginx  = "nginx.ingress.kubernetes.io/"
)

// Settings is what an Ingress asks for.
type Settings struct {
	// Options are complete but for what other objects hold.
	web.Options

	// Redirect to HTTPS if the Ingress has TLS for the host, or always.
	SSLRedirect, ForceSSLRedirect bool
	// Regexp reads ImplementationSpecific paths as regular expressions;
	// RegexpAll, as ingress-nginx does, Prefix paths too, ignoring case.
	Regexp, RegexpAll bool
	Rewrite           string
	// AuthSecret and BackendCA are Secrets' names, perhaps with a namespace.
	AuthSecret, BackendCA string
	// AuthMap says that each key of AuthSecret is a user.
	AuthMap bool
}

// Problem is an annotation that is not followed.
type Problem struct {
	Key, Value string
	// Text says why, and what to write instead.
	Text string
	// Closed problems refuse all requests of the Ingress until solved.
	Closed bool
}

func (p Problem) String() string {
	return fmt.Sprintf("annotation %s: %q %s", p.Key, p.Value, p.Text)
}

// Known reports, for a migration, what becomes of an annotation.
type Known uint8

// What becomes of an annotation.
const (
	Unknown     Known = iota // not ours to read
	Supported                // followed
	NoEffect                 // accepted; what it tunes does not exist here
	Ignored                  // of ingress-nginx, not followed
	Unsupported              // of ingress-nginx, about who may enter: closes the Ingress
)

// Classify says what becomes of a key, whatever its value.
func Classify(key string) Known {
	name, compat := strings.CutPrefix(key, Nginx)
	if !compat {
		var ours bool
		if name, ours = strings.CutPrefix(key, Prefix); !ours {
			return Unknown
		}
	}
	i := slices.IndexFunc(rules, func(r Rule) bool { return r.Name == name || r.Alias == name && compat })
	switch {
	case i >= 0 && rules[i].NoEffect:
		return NoEffect
	case i >= 0:
		return Supported
	case compat && decidesAccess(name):
		return Unsupported
	case compat:
		return Ignored
	}
	return Unknown
}

// Read reads all annotations. The order of problems is that of keys.
func Read(annotations map[string]string) (Settings, []Problem) {
	r := reader{Settings: Settings{SSLRedirect: true}}
	var problems []Problem
	for i := range rules {
		key, value, compat, found := lookup(annotations, &rules[i])
		if !found {
			continue
		}
		r.compat = compat
		if err := rules[i].read(&r, strings.TrimSpace(value)); err != nil {
			problems = append(problems, Problem{Key: key, Value: value, Text: err.Error(), Closed: rules[i].Closed})
		}
	}
	// What is missing is told only where nothing was wrong: it may be that.
	if p := r.finish(); p != nil && !slices.ContainsFunc(problems, func(p Problem) bool { return p.Closed }) {
		problems = append(problems, *p)
	}
	for _, key := range slices.Sorted(maps.Keys(annotations)) {
		if p := unread(key, annotations[key]); p != nil {
			problems = append(problems, *p)
		}
	}
	for _, p := range problems {
		if p.Closed && r.Closed == "" {
			r.Closed = p.String()
		}
	}
	return r.Settings, problems
}

// lookup finds a rule's value; our own name wins over ingress-nginx's.
func lookup(annotations map[string]string, r *Rule) (key, value string, compat, found bool) {
	if value, found = annotations[Prefix+r.Name]; found {
		return Prefix + r.Name, value, false, true
	}
	for _, name := range []string{r.Name, r.Alias} {
		if name == "" || r.Own {
			continue
		}
		if value, found = annotations[Nginx+name]; found {
			return Nginx + name, value, true, true
		}
	}
	return "", "", false, false
}

// unread is the problem of a key under our prefixes that no rule reads.
func unread(key, value string) *Problem {
	if name, ours := strings.CutPrefix(key, Prefix); ours {
		if slices.ContainsFunc(rules, func(r Rule) bool { return r.Name == name }) {
			return nil
		}
		return &Problem{Key: key, Value: value, Text: "is not known: correct its name or remove it", Closed: decidesAccess(name)}
	}
	name, compat := strings.CutPrefix(key, Nginx)
	if !compat || slices.ContainsFunc(rules, func(r Rule) bool { return !r.Own && (r.Name == name || r.Alias == name) }) {
		return nil
	}
	p := &Problem{Key: key, Value: value, Text: "is not supported and is ignored"}
	switch {
	case strings.HasSuffix(name, "-snippet"):
		p.Text = "is configuration text of nginx, which is never evaluated: use typed annotations"
		p.Closed = name == "auth-snippet" || name == "modsecurity-snippet" || snippetGuards(value)
	case decidesAccess(name):
		p.Text, p.Closed = "decides who may enter and is not supported", !harmless(name, value)
	}
	return p
}

// decidesAccess names what must not be ignored.
func decidesAccess(name string) bool {
	switch name {
	case "auth-cache-key", "auth-cache-duration", "auth-keepalive", "auth-keepalive-requests", "auth-keepalive-timeout",
		"auth-keepalive-share-vars", "auth-always-set-cookie", "auth-request-redirect", "auth-tls-error-page",
		"auth-tls-verify-depth", "auth-tls-pass-certificate-to-upstream":
		return false
	case "satisfy", "enable-modsecurity", "enable-owasp-core-rules":
		return true
	}
	return strings.HasPrefix(name, "auth-") || strings.HasSuffix(name, "list-source-range") || strings.HasSuffix(name, "-snippet")
}

// harmless are the values that ask for no more than there is without them.
func harmless(name, value string) bool {
	switch name {
	case "satisfy":
		return value == "all"
	case "enable-modsecurity", "enable-owasp-core-rules":
		return value == "false"
	case "auth-tls-verify-client":
		return value == "off"
	case "auth-method":
		return value == "GET"
	}
	return false
}

// snippetGuards reports whether configuration text of nginx may keep
// somebody out.
func snippetGuards(text string) bool {
	return slices.ContainsFunc([]string{"allow", "deny", "auth", "satisfy", "return", "access_by", "limit_except", "internal"}, func(word string) bool {
		return strings.Contains(text, word)
	})
}
