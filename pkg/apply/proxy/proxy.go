// Package proxy serves HTTP as a program says. Inputs are web.Programs, each
// replacing the one before in a single step while requests go on under the
// one they began with, and listening sockets; outputs are answers, and a
// record of each for metrics and logs. It speaks HTTP/1.1, HTTP/2 and
// WebSocket, streams every body, and refuses what two servers could read
// differently.
package proxy

import (
	"context"
	"net/http/httputil"
	"time"

	"poplin.dev/poplin/pkg/apply/proxy/engine"
	"poplin.dev/poplin/pkg/apply/proxy/h1"
)

// Config is what holds for all routes.
type Config = engine.Config

// Observer is told what happens.
type Observer = engine.Observer

// Record is one request, for metrics and logs.
type Record = engine.Record

// Proxy is both engines: one for HTTP/1.1 as most of it is, which hands on
// what it does not do, and one on net/http for everything.
type Proxy struct {
	*engine.Shared
	quick   *h1.Server
	buffers buffers
	reverse *httputil.ReverseProxy
	auth    *authenticator
}

// New makes a proxy that answers 404 to everything.
func New(cfg Config) *Proxy {
	p := &Proxy{Shared: engine.New(cfg), auth: newAuthenticator()}
	p.quick = h1.New(p.Shared)
	p.reverse = p.newReverse()
	return p
}

// wait sleeps, or returns early when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
