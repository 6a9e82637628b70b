package web

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
)

// HostName reduces a Host header to the name that routes are found by: lower
// case, no port, no dot at the end. It reports false for what is no host.
func HostName(header string) (string, bool) {
	h := header
	if strings.HasPrefix(h, "[") {
		end := strings.IndexByte(h, ']')
		if end < 0 || !isPort(h[end+1:]) {
			return "", false
		}
		a, err := netip.ParseAddr(h[1:end])
		return h[1:end], err == nil && a.Is6() && a.Zone() == ""
	}
	if i := strings.IndexByte(h, ':'); i >= 0 {
		if !isPort(h[i:]) {
			return "", false
		}
		h = h[:i]
	}
	h = strings.TrimSuffix(h, ".")
	if h == "" || len(h) > 253 || h[0] == '.' || strings.Contains(h, "..") {
		return "", false
	}
	for i := range len(h) {
		switch c := h[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '.', c == '_':
		default:
			return "", false
		}
	}
	return strings.ToLower(h), true
}

// isPort accepts nothing, a colon, or a colon and digits.
func isPort(s string) bool {
	if s == "" {
		return true
	}
	return s[0] == ':' && len(s) <= 6 && strings.Trim(s[1:], "0123456789") == ""
}

// Wildcard is the wildcard name that covers name, or empty: the first label,
// and only that, is open.
func Wildcard(name string) string {
	if i := strings.IndexByte(name, '.'); i > 0 {
		return "*" + name[i:]
	}
	return ""
}

// Host finds the routes of a host name: its own, then those of the wildcard
// that covers it, then those of any host. It is decided before the path: a
// host whose paths do not match does not fall through to a broader one.
func (p *Program) Host(name string) *Host {
	if h := p.Hosts[name]; h != nil {
		return h
	}
	if w := Wildcard(name); w != "" {
		if h := p.Hosts[w]; h != nil {
			return h
		}
	}
	return p.Hosts[""]
}

// Match finds the route of a request. path is in normal form (Clean). Nil
// means 404.
func (p *Program) Match(host, path string) *Route {
	if h := p.Host(host); h != nil {
		if r := h.Match(path); r != nil {
			return r
		}
	}
	return p.Default
}

// Match finds the route of a path: Exact first, then the longest of the
// prefixes and regular expressions that match, then the default.
func (h *Host) Match(path string) *Route {
	if r := h.Exact[path]; r != nil {
		return r
	}
	prefix := h.prefix(path)
	for _, r := range h.Regexp {
		if prefix != nil && len(prefix.Path) > len(r.Path) {
			break
		}
		if r.Match.MatchString(path) {
			return r
		}
	}
	if prefix != nil {
		return prefix
	}
	return h.Default
}

func (h *Host) prefix(path string) *Route {
	if h.Depth == 0 {
		return h.Prefix[""]
	}
	// No key is deeper than Depth, so what lies below need not be looked at:
	// a request of a thousand slashes costs no more than one of a few.
	end := len(path)
	for i, depth := 1, 0; i < len(path); i++ {
		if path[i] == '/' {
			if depth++; depth == h.Depth {
				end = i
				break
			}
		}
	}
	for key := path[:end]; ; {
		if r := h.Prefix[strings.TrimSuffix(key, "/")]; r != nil {
			return r
		}
		i := strings.LastIndexByte(key, '/')
		if i < 0 || key == "" {
			return nil
		}
		key = key[:i]
	}
}

// Covers finds the certificate for a server name: its own, then the
// wildcard's, then the default. Nil refuses the connection.
func (p *Program) Covers(name string) *Certificate {
	if c := p.Certificates[name]; c != nil {
		return c
	}
	if w := Wildcard(name); w != "" {
		if c := p.Certificates[w]; c != nil {
			return c
		}
	}
	return p.DefaultCertificate
}

// Depth counts the elements of a prefix's key.
func Depth(key string) int { return strings.Count(key, "/") }

// PrefixKey is the key of a path in Host.Prefix.
func PrefixKey(clean string) string { return strings.TrimSuffix(clean, "/") }

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

func sortedBackends(m map[BackendID]*Backend) []BackendID {
	return slices.SortedFunc(maps.Keys(m), func(a, b BackendID) int {
		return cmp.Or(cluster.ObjectName.Compare(a.Service, b.Service), strings.Compare(a.Port, b.Port))
	})
}
