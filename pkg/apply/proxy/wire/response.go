package wire

// Response is an answer's head.
type Response struct {
	head
	Minor  int // of HTTP/1
	Status int
	Reason string
	// ToEnd says that the body ends with the connection.
	ToEnd bool
	// Bodiless says that there is none whatever the headers say.
	Bodiless bool
}

// Reset lets go of what was parsed.
func (r *Response) Reset() { *r = Response{head: head{Fields: recycle(r.Fields)}} }

// Parse reads a head as End found it; method is the request's.
func (r *Response) Parse(text, method string) error {
	r.Reset()
	first, rest, err := line(text)
	if err != nil {
		return err
	}
	if err := r.line(first); err != nil {
		return err
	}
	if r.Fields, err = fields(r.Fields, rest); err != nil {
		return err
	}
	for i := range r.Fields {
		if err := r.frame(&r.Fields[i], r.Minor); err != nil {
			return err
		}
	}
	if r.Chunked && r.sized {
		return errBoth
	}
	r.Bodiless = method == "HEAD" || r.Status < 200 || r.Status == 204 || r.Status == 304
	r.ToEnd = !r.Bodiless && !r.Chunked && !r.sized
	return nil
}

func (r *Response) line(s string) error {
	// HTTP/1.1 200 OK; some leave the reason out, and the space with it.
	if len(s) < 12 || s[:7] != "HTTP/1." || s[7] != '0' && s[7] != '1' || s[8] != ' ' || len(s) > 12 && s[12] != ' ' {
		return errStatus
	}
	r.Minor = int(s[7] - '0')
	for _, c := range []byte(s[9:12]) {
		if c < '0' || c > '9' {
			return errStatus
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	if r.Status < 100 {
		return errStatus
	}
	if len(s) > 12 {
		r.Reason = s[13:]
	}
	for i := range len(r.Reason) {
		if is[r.Reason[i]]&inValue == 0 {
			return errStatus
		}
	}
	return nil
}

// Sized reports whether there is a Content-Length.
func (r *Response) Sized() bool { return r.sized }

// Reusable reports whether another request may follow on the connection, once
// the body was read.
func (r *Response) Reusable() bool { return r.Minor == 1 && !r.Close && !r.ToEnd }
