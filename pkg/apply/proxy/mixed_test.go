package proxy

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// wish is what a request asks of the back end, and what comes back for it.
type wish struct {
	id                   string
	method               string
	body                 []byte
	chunked              bool // the request
	status, length       int
	stream, close, early bool // the answer: in chunks, the last one, before the body was read
	leave                bool // the client does not wait
}

var lengths = []int{0, 0, 1, 100, 3000, 5000, 70_000, 300_000}

func newWish(r *rand.Rand, id string) wish {
	one := func(in int) bool { return r.IntN(in) == 0 }
	w := wish{
		id: id, method: []string{"GET", "GET", "HEAD", "POST", "POST", "PUT", "DELETE"}[r.IntN(7)], chunked: one(2),
		status: 200, length: lengths[r.IntN(len(lengths))], stream: one(2), close: one(10), early: one(30), leave: one(20),
	}
	if w.method == "POST" || w.method == "PUT" {
		w.body = bytes.Repeat([]byte(id), lengths[r.IntN(len(lengths))]/len(id)+1)
	}
	if one(10) {
		w.status, w.length = []int{204, 304}[r.IntN(2)], 0
	}
	return w
}

// grant is the back end.
func grant(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	h := w.Header()
	if q.Get("early") == "" {
		sum := crc32.NewIEEE()
		if _, err := io.Copy(sum, r.Body); err != nil {
			return
		}
		h.Set("X-Sum", fmt.Sprint(sum.Sum32()))
	}
	if q.Get("close")+q.Get("early") != "" {
		h.Set("Connection", "close")
	}
	h.Set("X-Id", q.Get("id"))
	length, _ := strconv.Atoi(q.Get("length"))
	status, _ := strconv.Atoi(q.Get("status"))
	body := bytes.Repeat([]byte(q.Get("id")), length)
	if q.Get("stream") == "" && status == 200 {
		h.Set("Content-Length", fmt.Sprint(len(body)))
	}
	w.WriteHeader(status)
	for len(body) > 0 {
		n := min(len(body), 40_000)
		if _, err := w.Write(body[:n]); err != nil {
			return
		}
		if body = body[n:]; q.Get("stream") != "" {
			w.(http.Flusher).Flush()
		}
	}
}

// ask sends a wish, and says what is wrong with what comes back.
func (w wish) ask(client *http.Client, base string) error {
	mark := func(name string, on bool) string {
		if on {
			return "&" + name + "=1"
		}
		return ""
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if w.leave {
		time.AfterFunc(time.Duration(len(w.body)%7)*100*time.Microsecond, cancel)
	}
	var body io.Reader
	if w.body != nil {
		body = bytes.NewReader(w.body)
		if w.chunked {
			body = io.MultiReader(body)
		}
	}
	url := fmt.Sprintf("%s/x?id=%s&length=%d&status=%d%s%s%s", base, w.id, w.length/len(w.id), w.status, mark("stream", w.stream), mark("close", w.close), mark("early", w.early))
	req, err := http.NewRequestWithContext(ctx, w.method, url, body)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		if w.leave || w.early && len(w.body) > 0 {
			return nil
		}
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	want := bytes.Repeat([]byte(w.id), w.length/len(w.id))
	if w.method == "HEAD" || w.status != 200 {
		want = nil
	}
	switch id, sum := resp.Header.Get("X-Id"), resp.Header.Get("X-Sum"); {
	case w.leave && (err != nil || resp.StatusCode != w.status):
	case resp.StatusCode != w.status:
		return fmt.Errorf("status %d: %s", resp.StatusCode, got)
	case id != w.id:
		return fmt.Errorf("the answer is for %s", id)
	case err != nil:
		return err
	case !bytes.Equal(got, want):
		return fmt.Errorf("%d bytes came instead of %d", len(got), len(want))
	case !w.early && sum != fmt.Sprint(crc32.ChecksumIEEE(w.body)):
		return fmt.Errorf("the back end got another body")
	}
	return nil
}

// TestNothingIsMixedUp sends requests of all shapes at once, some of whose
// clients leave and whose endpoints answer early or close: every answer is
// whole, and the one to its request.
func TestNothingIsMixedUp(t *testing.T) { engines(t, testNothingIsMixedUp) }

func testNothingIsMixedUp(t *testing.T, e engineName) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	f := run(t, e, Config{})
	f.route(web.Options{}, server(t, grant), server(t, grant))
	var wg sync.WaitGroup
	for worker := range 12 {
		wg.Go(func() {
			protocol := []string{"http/1.1", "http/1.1", "https", "h2"}[worker%4]
			client, r := f.client(protocol), rand.New(rand.NewPCG(seed, uint64(worker)))
			for i := range count(150, 2000) {
				w := newWish(r, fmt.Sprintf("w%02d-%05d", worker, i))
				if err := w.ask(client, scheme(protocol)+"example.com"); err != nil {
					w.body = w.body[:min(len(w.body), 10)]
					t.Errorf("%s %+v: %v", protocol, w, err)
				}
			}
		})
	}
	wg.Wait()
	eventually(t, "nothing is under way", func() bool { return f.Active() == 0 })
}
