package wire

import (
	"net/http"
	"strconv"
	"sync/atomic"
	"time"
)

// AppendField writes a header.
func AppendField(b []byte, name, value string) []byte {
	b = append(append(b, name...), ": "...)
	return append(append(b, value...), "\r\n"...)
}

// AppendLength writes a Content-Length.
func AppendLength(b []byte, n int64) []byte {
	b = append(b, "Content-Length: "...)
	return append(strconv.AppendInt(b, n, 10), "\r\n"...)
}

// AppendSize writes the line before a chunk's data.
func AppendSize(b []byte, n int) []byte {
	return append(strconv.AppendInt(b, int64(n), 16), "\r\n"...)
}

// stamp is the text of a second.
type stamp struct {
	second int64
	line   string
}

var lastStamp atomic.Pointer[stamp]

// AppendDate says when an answer was received where its maker did not (RFC
// 9110, section 6.6.1).
func AppendDate(b []byte, now time.Time) []byte {
	s := lastStamp.Load()
	if s == nil || s.second != now.Unix() {
		s = &stamp{now.Unix(), "Date: " + now.UTC().Format(http.TimeFormat) + "\r\n"}
		lastStamp.Store(s)
	}
	return append(b, s.line...)
}
