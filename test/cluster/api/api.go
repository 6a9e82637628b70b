// Package api asks an API server a few things as the administrator. In: its URL,
// certificates, and how to dial it. Out: the objects' fields that a cluster's
// maker waits for. It refuses servers that the cluster's CA does not vouch for.
// A client library would be fifty times the size of what it saves here.
package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Client asks one API server.
type Client struct {
	server string
	http   *http.Client
}

// Files are those of the certificates.
type Files struct {
	CA, Certificate, Key string
}

// New makes a client.
func New(server string, files Files, dial func(ctx context.Context, network, address string) (net.Conn, error)) (*Client, error) {
	authority, err := os.ReadFile(files.CA)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(files.Certificate, files.Key)
	if err != nil {
		return nil, fmt.Errorf("make client: %w", err)
	}
	return &Client{server, &http.Client{
		Timeout: 10 * time.Second,
		Transport: &http.Transport{
			DialContext:       dial,
			TLSClientConfig:   &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS13},
			ForceAttemptHTTP2: true,
		},
	}}, nil
}

// Close lets go of its connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Get reads one object; into may be nil.
func (c *Client) Get(ctx context.Context, path string, into any) error {
	return c.Send(ctx, http.MethodGet, path, nil, into)
}

// Send makes any request. The object, unless it is nil, goes with it; what the
// API server answers goes into into, unless that is nil. PATCH is a server-side
// apply.
func (c *Client) Send(ctx context.Context, method, path string, object, into any) error {
	var body io.Reader
	if object != nil {
		b, err := json.Marshal(object)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	request, err := http.NewRequestWithContext(ctx, method, c.server+path, body)
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/apply-patch+yaml") // JSON is YAML
	}
	response, err := c.http.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", strings.ToLower(method), path, response.Status, LastLines(answer, 1))
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// Open makes a request for a stream, or for what is not JSON; accept names the
// form that is wanted. Only ctx bounds it in time.
func (c *Client) Open(ctx context.Context, path, accept string) (io.ReadCloser, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, c.server+path, nil)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Accept", accept)
	response, err := (&http.Client{Transport: c.http.Transport}).Do(request)
	if err != nil {
		return nil, err
	}
	if response.StatusCode != http.StatusOK {
		response.Body.Close()
		return nil, fmt.Errorf("get %s: %s", path, response.Status)
	}
	return response.Body, nil
}

// Poll asks until the answer is yes. An error is not the end, it is the reason
// when time is up.
func Poll(ctx context.Context, limit time.Duration, what string, ask func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	last := errors.New("not asked yet")
	for {
		err := ask(ctx)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w (%w)", what, context.Cause(ctx), last)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// LastLines are what an error quotes of a log.
func LastLines(text []byte, n int) string {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-n):], []byte("\n")))
}
