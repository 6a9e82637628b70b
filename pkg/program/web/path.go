package web

import (
	"errors"
	"strings"
)

// What Clean refuses.
var (
	ErrPath      = errors.New("path is no valid URL path")
	ErrAmbiguous = errors.New("path climbs up in a way that servers read differently")
)

// Clean brings an escaped path into normal form (RFC 3986, section 6.2.2):
// unreserved bytes decoded, other escapes in upper case, dot segments
// resolved, empty elements dropped. It is both what routes are matched with
// and what is forwarded, so a back end cannot see another path than the one
// that was decided on. An escaped slash stays escaped; but with dots beside
// it, or after a ";" (some servers strip parameters), the path could climb
// out of the route it matched, and is refused.
func Clean(path string) (string, error) {
	if path == "" || path[0] != '/' {
		return "", ErrPath
	}
	if isClean(path) {
		return path, nil
	}
	escaped, err := normalEscapes(path)
	if err != nil {
		return "", err
	}
	var out []string
	elements := strings.Split(escaped[1:], "/")
	for i, e := range elements {
		last := i == len(elements)-1
		switch e {
		case "":
		case ".":
		case "..":
			if len(out) > 0 {
				out = out[:len(out)-1]
			}
		default:
			if climbs(e) {
				return "", ErrAmbiguous
			}
			out = append(out, e)
			continue
		}
		if last {
			out = append(out, "")
		}
	}
	return "/" + strings.Join(out, "/"), nil
}

// isClean recognises what needs no work: nearly every request.
func isClean(path string) bool {
	for i := range len(path) {
		c := path[i]
		if !plain[c] {
			return false
		}
		if (c == '/' || c == '.') && i > 0 && path[i-1] == '/' {
			return false
		}
	}
	return true
}

// normalEscapes decodes what needs no escape and escapes what does.
func normalEscapes(path string) (string, error) {
	var b strings.Builder
	b.Grow(len(path))
	for i := 0; i < len(path); i++ {
		c := path[i]
		escaped := c == '%'
		if escaped {
			if i+2 >= len(path) || !isHex(path[i+1]) || !isHex(path[i+2]) {
				return "", ErrPath
			}
			c = fromHex(path[i+1])<<4 | fromHex(path[i+2])
			i += 2
		}
		switch {
		case c == 0, !escaped && (c < ' ' || c == 0x7f):
			return "", ErrPath
		case unreserved(c), !escaped && (plain[c] || c == ';'):
			b.WriteByte(c)
		default:
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
		}
	}
	return b.String(), nil
}

// climbs reports whether a server that decodes more than we do would find a
// parent directory in one element.
func climbs(element string) bool {
	if !strings.ContainsAny(element, "%;") || !strings.Contains(element, "..") {
		return false
	}
	s := strings.NewReplacer("%2F", "/", "%5C", "/", "%3B", ";").Replace(element)
	for part := range strings.SplitSeq(s, "/") {
		part, _, _ = strings.Cut(part, ";")
		if part == ".." {
			return true
		}
	}
	return false
}

const hex = "0123456789ABCDEF"

// plain are the bytes of a path that stay as they are, wherever they stand:
// pchar of RFC 3986 without "%" and ";".
var plain = func() (t [256]bool) {
	for c := range 256 {
		t[c] = unreserved(byte(c)) || strings.IndexByte("!$&'()*+,=:@/", byte(c)) >= 0
	}
	return t
}()

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '.' || c == '_' || c == '~'
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func fromHex(c byte) byte {
	switch {
	case c >= 'a':
		return c - 'a' + 10
	case c >= 'A':
		return c - 'A' + 10
	}
	return c - '0'
}
