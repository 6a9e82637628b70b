package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
)

// AskRuntime asks a container runtime for its version by the kubelet's own
// interface (CRI, over gRPC). A runtime that has many containers to recover
// listens long before it answers, and a kubelet that gets no answer exits.
func AskRuntime(ctx context.Context, socket string) error {
	transport := &http.Transport{
		Protocols: new(http.Protocols),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	// An empty message: not compressed, of length 0.
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://runtime/runtime.v1.RuntimeService/Version", bytes.NewReader(make([]byte, 5)))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("TE", "trailers")
	resp, err := transport.RoundTrip(r)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	for _, h := range []http.Header{resp.Trailer, resp.Header} {
		if status := h.Get("Grpc-Status"); status == "0" {
			return nil
		} else if status != "" {
			return fmt.Errorf("the runtime does not answer yet: %s", h.Get("Grpc-Message"))
		}
	}
	return fmt.Errorf("the runtime answers %s and no gRPC status", resp.Status)
}
