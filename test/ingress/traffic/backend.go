package traffic

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Paths of the back end.
const (
	WebSocketPath = "/socket"
	GRPCPath      = "/chat.Chat/Talk"
)

// Backend answers with its name; under WebSocketPath it takes an upgrade, and
// under GRPCPath a gRPC call, and repeats each line in upper case for as long
// as the client likes. Lines stand in for frames and messages, which are the
// business of neither a proxy nor this.
func Backend(name string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, name) })
	mux.HandleFunc(WebSocketPath, upgrade)
	mux.HandleFunc(GRPCPath, talk)
	return mux
}

func upgrade(w http.ResponseWriter, r *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer c.Close()
	fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	shout(c, rw.Reader, func() error { return nil })
}

func talk(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	flush := http.NewResponseController(w).Flush
	if flush() == nil {
		shout(w, bufio.NewReader(r.Body), flush)
	}
	w.Header().Set("Grpc-Status", "0")
}

func shout(w io.Writer, r *bufio.Reader, flush func() error) {
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(w, strings.ToUpper(line)); err != nil || flush() != nil {
			return
		}
	}
}
