// Package echo is both ends of a test of connectivity. One end serves on a port
// over TCP and UDP and says who it is; the other asks a list of questions and
// says which were answered. It refuses to judge: whether an answer is good or bad
// news, who asked for it knows.
package echo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// largest bounds an answer.
const largest = 1 << 20

// Serve answers at an address, ":8080" say, under a name until ctx ends: HTTP with the name and as many bytes
// after it as the parameter size says, UDP with what was sent.
func Serve(ctx context.Context, name, address string) error {
	packets, err := net.ListenPacket("udp", address)
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return errors.Join(err, packets.Close())
	}
	server := http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size, _ := strconv.Atoi(r.URL.Query().Get("size")) // none is 0
		fmt.Fprintln(w, name)
		_, _ = w.Write(bytes.Repeat([]byte("."), min(max(size, 0), largest)))
	})}
	defer context.AfterFunc(ctx, func() { server.Close(); packets.Close() })()
	go returnPackets(packets)
	if err := server.Serve(listener); ctx.Err() == nil {
		return err
	}
	return nil
}

func returnPackets(conn net.PacketConn) {
	packet := make([]byte, 1<<16)
	for {
		n, from, err := conn.ReadFrom(packet)
		if err != nil {
			return
		}
		_, _ = conn.WriteTo(packet[:n], from) // or the asker asks again
	}
}

// Question is one thing to ask.
type Question struct {
	// UDP, or else HTTP, to Address, which is a host and a port.
	UDP     bool   `json:"udp,omitempty"`
	Address string `json:"address"`
	// Host is the Host header, if it is another.
	Host string `json:"host,omitempty"`
	// Size is how many bytes are to come back beside the name, or for UDP to be
	// sent and come back.
	Size int `json:"size,omitempty"`
}

// Answer is what became of it: who answered, or the problem.
type Answer struct {
	Name    string `json:"name,omitempty"`
	Problem string `json:"problem,omitempty"`
}

const (
	atOnce   = 16
	attempts = 2
)

// Ask asks all of them, each twice at most and as long as patience; answers are in
// the order of the questions.
func Ask(ctx context.Context, list []Question, patience time.Duration) []Answer {
	answers := make([]Answer, len(list))
	free := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, q := range list {
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			for range attempts {
				name, err := q.ask(ctx, patience)
				if answers[i] = (Answer{Name: name}); err == nil {
					return
				}
				answers[i].Problem = err.Error()
			}
		})
	}
	all.Wait()
	return answers
}

func (q Question) ask(ctx context.Context, patience time.Duration) (name string, err error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if q.UDP {
		return "", q.udp(ctx)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/?size=%d", q.Address, q.Size), nil)
	if err != nil {
		return "", err
	}
	if q.Host != "" {
		request.Host = q.Host
	}
	// A connection of its own: it is the connections that are tested.
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, 2*largest))
	if err != nil {
		return "", err
	}
	line, rest, found := bytes.Cut(body, []byte("\n"))
	switch {
	case response.StatusCode != http.StatusOK:
		return "", fmt.Errorf("it answers %s", response.Status)
	case !found || len(rest) != q.Size:
		return "", fmt.Errorf("%d bytes come back, want %d", len(rest), q.Size)
	}
	return string(line), nil
}

func (q Question) udp(ctx context.Context) error {
	conn, err := (&net.Dialer{}).DialContext(ctx, "udp", q.Address)
	if err != nil {
		return err
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	if err := conn.SetDeadline(deadline); err != nil {
		return err
	}
	sent := bytes.Repeat([]byte("."), max(q.Size, 1))
	if _, err := conn.Write(sent); err != nil {
		return err
	}
	back := make([]byte, len(sent)+1)
	n, err := conn.Read(back)
	if err != nil {
		return err
	}
	if n != len(sent) {
		return fmt.Errorf("%d bytes come back, want %d", n, len(sent))
	}
	return nil
}
