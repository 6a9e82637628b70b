package plane

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"sync"
	"time"
)

// Events hears of changed objects, as a daemon does.
type Events struct {
	body io.Closer
	done chan struct{}

	mu   sync.Mutex
	want []byte
	seen chan time.Time
}

// Watch begins with what changes in a collection from now on.
func (l *Plane) Watch(ctx context.Context, path string) (*Events, error) {
	var list struct {
		Metadata struct{ ResourceVersion string }
	}
	if err := l.API.Get(ctx, path+"?limit=1", &list); err != nil {
		return nil, err
	}
	body, err := l.API.Open(ctx, path+"?watch=1&resourceVersion="+list.Metadata.ResourceVersion, "application/json")
	if err != nil {
		return nil, err
	}
	e := &Events{body: body, done: make(chan struct{})}
	go e.run(body)
	return e, nil
}

// Close ends it.
func (e *Events) Close() {
	e.body.Close()
	<-e.done
}

// Expect returns a channel for the time of the first event that has a text.
func (e *Events) Expect(text string) <-chan time.Time {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.want, e.seen = []byte(text), make(chan time.Time, 1)
	return e.seen
}

// run reads events, which are a line each.
func (e *Events) run(body io.Reader) {
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
