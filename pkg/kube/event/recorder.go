package event

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/util/flowcontrol"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
)

const (
	// again is how long a sentence stands before it is said again.
	again = 30 * time.Minute
	// forget is how long the API server keeps an Event, by default.
	forget = time.Hour
	// perObject and total bound what is remembered, thus what is said within
	// that time; waiting bounds what has not been written yet.
	perObject, total, waiting = 10, 1000, 100
	// A second apart, after a burst.
	rate, burst = 1, 10
	// An API server that is away is asked again after a while.
	minRetry, maxRetry = time.Second, time.Minute
)

// Recorder writes what is said when the API server is there. It is a task.
type Recorder struct {
	writer Writer
	log    *slog.Logger
	// spread is how long all programs together should take to say one thing.
	spread func() time.Duration
	queue  chan Event

	mu   sync.Mutex
	said map[Event]*sentence
}

// sentence is what became of an Event.
type sentence struct {
	last time.Time
	// count is how often this program wrote it; 0 where another had.
	count int
}

// NewRecorder makes a recorder; nothing is written before Run.
func NewRecorder(w Writer, spread func() time.Duration, log *slog.Logger) *Recorder {
	return &Recorder{writer: w, log: log, spread: spread, queue: make(chan Event, waiting), said: map[Event]*sentence{}}
}

// Event tells an object's owner. It never blocks, and costs nothing where the
// same was said a moment ago: say it as long as it is true. message is
// a sentence.
func (r *Recorder) Event(about cluster.Reference, why reason.Reason, message string) {
	e := Event{About: about, Reason: why, Message: message}
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	s, known := r.said[e]
	if known && now.Sub(s.last) < again || !known && r.full(about, now) {
		return
	}
	select {
	case r.queue <- e:
	default:
		return // said again, it may find a place
	}
	if !known {
		s = &sentence{}
		r.said[e] = s
	}
	s.last = now
}

// full forgets what is over, and reports whether nothing new can be said. It
// is called with mu held.
func (r *Recorder) full(about cluster.Reference, now time.Time) bool {
	same := 0
	for e, s := range r.said {
		if now.Sub(s.last) >= forget {
			delete(r.said, e)
		} else if e.About == about {
			same++
		}
	}
	return same >= perObject || len(r.said) >= total
}

// Run writes until ctx ends.
func (r *Recorder) Run(ctx context.Context) {
	limit := flowcontrol.NewTokenBucketRateLimiter(rate, burst)
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-r.queue:
			// What one node sees, all may see at once.
			if most := r.spread(); most > 0 && !sleep(ctx, rand.N(most)) {
				return
			}
			r.drain(ctx, e, limit)
		}
	}
}

// drain writes e and what came meanwhile.
func (r *Recorder) drain(ctx context.Context, e Event, limit flowcontrol.RateLimiter) {
	for {
		if limit.Wait(ctx) != nil {
			return
		}
		r.write(ctx, e)
		select {
		case e = <-r.queue:
		default:
			return
		}
	}
}

// write tries until there is an answer.
func (r *Recorder) write(ctx context.Context, e Event) {
	for delay := minRetry; ; delay = min(2*delay, maxRetry) {
		err := r.once(ctx, e)
		if err == nil {
			return
		}
		if refused(err) {
			r.log.Warn("cannot write an Event", "about", e.About, "reason", e.Reason, "message", e.Message, "error", err)
			return
		}
		if !sleep(ctx, delay) {
			return
		}
	}
}

// refused says that the answer is no: the object's namespace is gone, say, or
// a right is missing.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

func (r *Recorder) once(ctx context.Context, e Event) error {
	if count := r.count(e); count > 0 {
		alive, err := r.writer.Repeat(ctx, e, count+1)
		if err != nil {
			return err
		}
		if alive {
			r.wrote(e, count+1)
			return nil
		}
	}
	created, err := r.writer.Create(ctx, e)
	if created {
		r.wrote(e, 1)
	}
	return err
}

func (r *Recorder) count(e Event) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, known := r.said[e]; known {
		return s.count
	}
	return 0
}

func (r *Recorder) wrote(e Event, count int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if s, known := r.said[e]; known {
		s.count = count
	}
}

// sleep reports false when ctx ends first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
