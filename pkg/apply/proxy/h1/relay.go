package h1

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/header"
	"poplin.dev/poplin/pkg/apply/proxy/link"
	"poplin.dev/poplin/pkg/apply/proxy/upstream"
	"poplin.dev/poplin/pkg/apply/proxy/wire"
)

// maxEarly is how many informational answers may come before the answer.
const maxEarly = 16

// receive passes an answer on, whose beginning was read.
func (x *exchange) receive(l *link.Link, in *link.Buffer) (o outcome) {
	defer func() {
		if in != nil {
			in.Free()
		}
	}()
	for range maxEarly {
		if o := x.readHead(l, in); o != answered {
			return o
		}
		switch {
		case x.res.Status == 101:
			return invalid // nobody has asked for it
		case x.res.Status >= 200:
			in, o = x.pass(l, in)
			return o
		case x.res.Status > 100 && x.req.Minor == 1:
			b := x.appendHead(x.head())
			x.wrote(append(b, "\r\n"...))
			if _, err := x.c.Write(*x.out); err != nil {
				x.cut(clientLeft)
				return lost
			}
		}
	}
	return invalid
}

// readHead reads an answer's head, and drops it from the buffer.
func (x *exchange) readHead(l *link.Link, in *link.Buffer) outcome {
	for seen := 0; ; {
		n, err := wire.End(in.Bytes(), seen)
		if n > 0 {
			if err = x.res.Parse(string(in.Bytes()[:n]), x.req.Method); err == nil {
				in.Drop(n)
				return answered
			}
		}
		if err != nil || len(in.Bytes()) >= upstream.MaxAnswerHeader || len(in.Space()) == 0 && !in.Grow(upstream.MaxAnswerHeader) {
			return invalid
		}
		seen = len(in.Bytes())
		if _, err = l.Fill(in); errors.Is(err, os.ErrDeadlineExceeded) {
			return late
		} else if err != nil {
			return invalid
		}
	}
}

// pass passes the answer on whose head was parsed; every piece as it comes,
// for it may be a stream. It returns the buffer that it holds.
func (x *exchange) pass(l *link.Link, in *link.Buffer) (*link.Buffer, outcome) {
	body := &x.answer
	switch {
	case x.res.Bodiless:
		body.Begin(0, false)
	case x.res.ToEnd:
		body.BeginToEnd()
	default:
		body.Begin(x.res.Length, x.res.Chunked)
	}
	x.record.Status = x.res.Status
	chunked := !x.res.Bodiless && !x.res.Sized() && x.req.Minor == 1
	if x.upload != nil && !x.upload.sent() {
		// A client that may still be sending, and an endpoint that may not
		// be reading any more, leave no place for another request.
		x.keep, x.res.Close = false, true
	}
	x.keep = x.keep && !x.c.s.Draining() && (x.res.Bodiless || x.res.Sized() || chunked)
	silence := x.c.s.ReadSilence(x.route)
	if x.route.Read == 0 && x.streams() {
		silence = 0
	}
	for {
		n, used, err := body.Take(in.Bytes())
		if err != nil {
			return in, x.brokenOff()
		}
		if used < len(in.Bytes()) {
			x.res.Close = true // whose would the rest be?
		}
		in.Cut(n)
		if chunked && !chunk(in, body) {
			return in, x.brokenOff()
		}
		if !x.headed {
			x.headed = true
			b := append(x.appendFraming(x.appendHead(x.head()), chunked), "\r\n"...)
			if x.wrote(b); !in.Prepend(b) {
				if _, err := x.c.Write(b); err != nil {
					x.cut(clientLeft)
					return in, broken
				}
			}
		}
		if len(in.Bytes()) > 0 {
			if _, err := x.c.Write(in.Bytes()); err != nil {
				x.cut(clientLeft)
				return in, broken
			}
		}
		if x.record.BytesOut += int64(n); body.Done() {
			return in, answered
		}
		in.Free()
		if in, err = x.more(l, silence); x.res.ToEnd && errors.Is(err, io.EOF) {
			return nil, x.endOfStream(chunked)
		} else if err != nil {
			return nil, broken
		}
	}
}

// brokenOff says whether there is still time for another answer.
func (x *exchange) brokenOff() outcome {
	if x.headed {
		return broken
	}
	return invalid
}

// endOfStream ends what ended with the endpoint's connection.
func (x *exchange) endOfStream(chunked bool) outcome {
	if chunked {
		if _, err := x.c.Write([]byte("0\r\n\r\n")); err != nil {
			x.cut(clientLeft)
			return broken
		}
	}
	return answered
}

// streams reports whether the answer may be silent for as long as it likes.
func (x *exchange) streams() bool {
	const events = "text/event-stream"
	for i := range x.res.Fields {
		if f := &x.res.Fields[i]; f.Role == header.ContentType && len(f.Value) >= len(events) && strings.EqualFold(f.Value[:len(events)], events) {
			return true
		}
	}
	return false
}

// appendHead writes the answer's head but for what this hop says itself.
func (x *exchange) appendHead(b []byte) []byte {
	b = strconv.AppendInt(append(b, "HTTP/1.1 "...), int64(x.res.Status), 10)
	b = append(append(append(b, ' '), x.res.Reason...), "\r\n"...)
	hsts := x.hsts()
	for i := range x.res.Fields {
		f := &x.res.Fields[i]
		switch f.Role {
		case header.Connection, header.ContentLength, header.TransferEncoding, header.Hop, header.Te, header.Upgrade:
			continue
		case header.Trailer:
			if !x.res.Chunked {
				continue
			}
		}
		if x.res.Drops(f.Name) || hsts && strings.EqualFold(f.Name, "Strict-Transport-Security") {
			continue
		}
		b = wire.AppendField(b, f.Name, f.Value)
	}
	return b
}

// appendFraming says how long the body is, and what becomes of the connection.
func (x *exchange) appendFraming(b []byte, chunked bool) []byte {
	dated := false
	for i := range x.res.Fields {
		dated = dated || x.res.Fields[i].Role == header.Date
	}
	if !dated {
		b = wire.AppendDate(b, time.Now())
	}
	switch {
	case chunked:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	case x.res.Sized() && x.res.Status != 204:
		b = wire.AppendLength(b, x.res.Length)
	}
	return x.appendConnection(x.appendHSTS(b))
}
