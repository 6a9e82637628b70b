package web

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Template is text with variables of the request. It is a list of parts:
// nothing is evaluated but these few names.
type Template []Part

// Part is literal text or a variable.
type Part struct {
	Text     string
	Variable Variable
}

// Variable is what a template may ask of a request.
type Variable uint8

// The variables, under the names that people know from nginx.
const (
	NoVariable Variable = iota
	VarHost
	VarScheme
	VarURI
	VarEscapedURI
	VarMethod
)

var variables = []struct {
	name string
	is   Variable
}{
	// Longer names first: $request_uri is not $request_method's beginning,
	// but $host is $http_host's neighbour and must not shadow it.
	{"$escaped_request_uri", VarEscapedURI},
	{"$request_method", VarMethod},
	{"$request_uri", VarURI},
	{"$http_host", VarHost},
	{"$scheme", VarScheme},
	{"$host", VarHost},
}

// ParseTemplate reads text with variables.
func ParseTemplate(s string) (Template, error) {
	var t Template
	for s != "" {
		i := strings.IndexByte(s, '$')
		if i != 0 {
			if i < 0 {
				i = len(s)
			}
			t = append(t, Part{Text: s[:i]})
			s = s[i:]
			continue
		}
		n := 1
		for n < len(s) && (s[n] == '_' || s[n] >= 'a' && s[n] <= 'z') {
			n++
		}
		known := slices.IndexFunc(variables, func(v struct {
			name string
			is   Variable
		}) bool {
			return v.name == s[:n]
		})
		if known < 0 {
			return nil, fmt.Errorf("variable %q is not known: use $host, $scheme, $request_uri, $escaped_request_uri or $request_method", s[:n])
		}
		t = append(t, Part{Variable: variables[known].is})
		s = s[n:]
	}
	return t, nil
}

// Uses reports whether t asks for v.
func (t Template) Uses(v Variable) bool {
	return slices.ContainsFunc(t, func(p Part) bool { return p.Variable == v })
}

// Request is what a template may see of a request.
type Request struct{ Scheme, Host, URI, Method string }

// Fill writes the text for one request.
func (t Template) Fill(r Request) string {
	var b strings.Builder
	for _, p := range t {
		switch p.Variable {
		case VarHost:
			b.WriteString(r.Host)
		case VarScheme:
			b.WriteString(r.Scheme)
		case VarURI:
			b.WriteString(r.URI)
		case VarEscapedURI:
			b.WriteString(url.QueryEscape(r.URI))
		case VarMethod:
			b.WriteString(r.Method)
		default:
			b.WriteString(p.Text)
		}
	}
	return b.String()
}
