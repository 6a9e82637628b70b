package services

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net/netip"
	"sync"
	"time"
)

// events hears of changed EndpointSlices, as the proxy does.
type events struct {
	body io.Closer
	done chan struct{}

	mu   sync.Mutex
	want []byte
	seen chan time.Time
}

// watch begins with what changes from now on.
func (l *lab) watch(ctx context.Context) (*events, error) {
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := l.API.Get(ctx, slicesPath+"?limit=1", &list); err != nil {
		return nil, err
	}
	body, err := l.API.Open(ctx, slicesPath+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, "application/json")
	if err != nil {
		return nil, err
	}
	e := &events{body: body, done: make(chan struct{})}
	go e.run(body)
	return e, nil
}

func (e *events) close() {
	e.body.Close()
	<-e.done
}

// expect returns a channel for the time of the first event with an address.
func (e *events) expect(a netip.Addr) <-chan time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.want, e.seen = []byte(`"`+a.String()+`"`), make(chan time.Time, 1)
	return e.seen
}

// run reads events, which are a line each.
func (e *events) run(body io.Reader) {
	defer close(e.done)
	for lines := bufio.NewReaderSize(body, 1<<20); ; {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			return
		}
		now := time.Now()
		e.mu.Lock()
		if e.want != nil && bytes.Contains(line, e.want) {
			e.seen <- now
			e.want = nil
		}
		e.mu.Unlock()
	}
}
