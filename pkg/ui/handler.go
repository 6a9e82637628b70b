package ui

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/ui/graph"
)

//go:embed page
var files embed.FS

// handler answers one person.
type handler struct {
	source Source
	key    [sha256.Size]byte

	// turn has one request at a time ask the cluster, and guards what is below.
	turn  chan struct{}
	graph graph.Graph
	// until is how long the graph is fresh.
	until time.Time
}

const (
	// fresh is how long a graph is shown again, at least; a slow one ten times
	// as long as it took, so that the API server rests nine tenths of the time.
	fresh    = 2 * time.Second
	atRest   = 9
	patience = 30 * time.Second
)

// Handler is the page and what it asks for. Only who knows the key is told
// anything of the cluster.
func Handler(s Source, key string) http.Handler {
	h := &handler{source: s, key: sha256.Sum256([]byte(key)), turn: make(chan struct{}, 1)}
	page, err := fs.Sub(files, "page")
	if err != nil {
		panic(err) // the folder is built in
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServerFS(page))
	mux.Handle("/api/graph", h.keyed(h.graphed))
	mux.Handle("/api/trace", h.keyed(h.traced))
	return guarded(mux)
}

// headers keep the page to itself: nothing of others is loaded, and no other
// page shows it or reads it.
var headers = map[string]string{
	"Content-Security-Policy":      "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'",
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Cache-Control":                "no-store",
}

// guarded refuses what would change something, and names that are not this
// machine's: another site's name may lead here (DNS rebinding).
func guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for k, v := range headers {
			w.Header().Set(k, v)
		}
		switch {
		case !own(r.Host):
			http.Error(w, fmt.Sprintf("%q is not this machine's name: open http://localhost or http://127.0.0.1", r.Host), http.StatusMisdirectedRequest)
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "there is nothing to change here: use GET", http.StatusMethodNotAllowed)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

// own reports whether a Host header names this machine; the port may be that
// of a tunnel.
func own(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	host = strings.Trim(host, "[]")
	a, err := netip.ParseAddr(host)
	return strings.EqualFold(host, "localhost") || err == nil && a.IsLoopback()
}

// keyed asks for the key, which no browser sends by itself: so no other page
// can have this one's answers made.
func (h *handler) keyed(answer func(*http.Request) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		key, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if got := sha256.Sum256([]byte(key)); subtle.ConstantTimeCompare(got[:], h.key[:]) != 1 {
			w.Header().Set("WWW-Authenticate", "Bearer")
			write(w, http.StatusUnauthorized, problem{"this is not the key: open the address that poplinctl ui has printed"})
			return
		}
		ctx, stop := context.WithTimeout(r.Context(), patience)
		defer stop()
		select {
		case h.turn <- struct{}{}:
			defer func() { <-h.turn }()
		case <-ctx.Done():
			write(w, http.StatusServiceUnavailable, problem{"another request takes long"})
			return
		}
		switch v, err := answer(r.WithContext(ctx)); {
		case errors.As(err, &mistake{}):
			write(w, http.StatusBadRequest, problem{err.Error()})
		case err != nil:
			write(w, http.StatusBadGateway, problem{err.Error()})
		default:
			write(w, http.StatusOK, v)
		}
	})
}

// mistake is the asker's.
type mistake struct{ error }

// problem is the answer that is none.
type problem struct {
	Error string `json:"error"`
}

func write(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"error":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text) // who does not listen any more needs no answer
}

func (h *handler) graphed(r *http.Request) (any, error) { return h.current(r.Context()) }

// current is the graph, made anew if it is not fresh.
func (h *handler) current(ctx context.Context) (graph.Graph, error) {
	began := time.Now()
	if began.Before(h.until) {
		return h.graph, nil
	}
	g, err := h.source.Graph(ctx)
	if err != nil {
		return g, err
	}
	now := time.Now()
	h.graph, h.until = g, now.Add(max(fresh, atRest*now.Sub(began)))
	return g, nil
}

func (h *handler) traced(r *http.Request) (any, error) {
	q := r.URL.Query()
	family, known := map[string]int{"": 0, "4": 4, "6": 6}[q.Get("family")]
	switch {
	case !known:
		return nil, mistake{fmt.Errorf("family %q: write 4, 6 or nothing", q.Get("family"))}
	case strings.TrimSpace(q.Get("to")) == "":
		return nil, mistake{errors.New("to: write where the request goes, such as service/web:80")}
	}
	report, err := h.source.Trace(r.Context(), strings.TrimSpace(q.Get("from")), strings.TrimSpace(q.Get("to")), family)
	if err != nil {
		return nil, err
	}
	g, err := h.current(r.Context())
	if err != nil {
		g = h.graph // an old picture will do
	}
	return g.Place(report), nil
}
