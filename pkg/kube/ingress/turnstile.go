package ingress

import "net/http"

// atOnce is how many requests may wait for the beginning of their answer. Where
// no connection has room for one more stream, each of them opens another.
const atOnce = 16

// turnstile lets so many requests through at once.
type turnstile struct {
	next http.RoundTripper
	room chan struct{}
}

// RoundTrip implements http.RoundTripper.
func (t *turnstile) RoundTrip(r *http.Request) (*http.Response, error) {
	select {
	case t.room <- struct{}{}:
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	defer func() { <-t.room }()
	return t.next.RoundTrip(r)
}
