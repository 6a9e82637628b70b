package wire

import (
	"net/http"
	"strings"

	"poplin.dev/poplin/pkg/apply/proxy/header"
)

// Request is a request's head.
type Request struct {
	head
	Method, Target string
	Minor          int // of HTTP/1
	Host           string
	HasHost        bool
	// Unusual says that the request is not for a simple reader: another
	// protocol or an upgrade to one, a question before the body, a target
	// that is no path as URLs have them. Nothing else of it may be relied on.
	Unusual bool
}

// Reset lets go of what was parsed.
func (r *Request) Reset() { *r = Request{head: head{Fields: recycle(r.Fields)}} }

// Parse reads a head as End found it. Strings in r are parts of it.
func (r *Request) Parse(text string) error {
	r.Reset()
	first, rest, err := line(text)
	if err != nil {
		return err
	}
	if r.Unusual = first == preface; r.Unusual {
		return nil
	}
	if err := r.line(first); err != nil {
		return err
	}
	if r.Fields, err = fields(r.Fields, rest); err != nil {
		return err
	}
	for i := range r.Fields {
		f := &r.Fields[i]
		switch f.Role {
		case header.Host:
			if r.HasHost {
				return errHost
			}
			r.Host, r.HasHost = f.Value, true
		case header.Upgrade, header.Expect, header.Te:
			r.Unusual = true
		case header.ContentType:
			// gRPC's calls may be silent for long.
			r.Unusual = r.Unusual || len(f.Value) >= len(grpc) && strings.EqualFold(f.Value[:len(grpc)], grpc)
		default:
			err = r.frame(f, r.Minor)
		}
		if err != nil {
			return err
		}
	}
	switch {
	case r.Chunked && r.sized:
		return errBoth
	case !r.HasHost && r.Minor == 1 && !r.Unusual:
		return errHost
	}
	return nil
}

const (
	preface = "PRI * HTTP/2.0"
	grpc    = "application/grpc"
)

func (r *Request) line(s string) error {
	i, j := strings.IndexByte(s, ' '), strings.LastIndexByte(s, ' ')
	if i < 0 || j <= i+1 || !isToken(s[:i]) {
		return errRequest
	}
	version := s[j+1:]
	r.Method, r.Target = s[:i], s[i+1:j]
	switch version {
	case "HTTP/1.1":
		r.Minor = 1
	case "HTTP/1.0":
	default:
		if len(version) != 8 || version[:5] != "HTTP/" || version[6] != '.' || version[5] < '0' || version[5] > '9' || version[7] < '0' || version[7] > '9' {
			return errRequest
		}
		r.Unusual = true
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.Target[0] != '/' {
		r.Unusual = true
	}
	for i, allowed := 0, uint8(inPath); i < len(r.Target); i++ {
		switch c := r.Target[i]; {
		case is[c]&allowed != 0:
		case c == '?':
			allowed = inQuery
		case c <= ' ' || c == 0x7f:
			return errRequest
		default:
			r.Unusual = true
		}
	}
	return nil
}

// KeepAlive reports whether the client may send another request.
func (r *Request) KeepAlive() bool {
	if r.Minor == 0 {
		return r.Keep && !r.Close
	}
	return !r.Close
}

// HasBody reports whether one follows, empty or not.
func (r *Request) HasBody() bool { return r.Length > 0 || r.Chunked }

// Sized reports whether there is a Content-Length.
func (r *Request) Sized() bool { return r.sized }
