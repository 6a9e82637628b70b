// Package browser loads pages in a real Chromium. Inputs are a network
// namespace, where host names lead, and whose keys are believed; outputs are
// pages as a person would see them. It drives Debian's chromium through its
// chromedriver by the WebDriver protocol, which is JSON over HTTP, so it needs
// no library. Both live in a process namespace of their own and end with it.
// It refuses servers whose certificate is neither valid nor one of those given.
package browser

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"

	"poplin.dev/poplin/test/thread"
)

// Options say where a browser runs.
type Options struct {
	// Namespace is the file of its network namespace.
	Namespace string
	// Dir becomes its home; it must be empty.
	Dir string
	// Hosts are rules like "MAP example.com 192.0.2.1:8443".
	Hosts []string
	// Keys are the fingerprints of public keys that are believed without an
	// authority: SHA-256, in base64.
	Keys []string
}

// Browser is a running one, with one window.
type Browser struct {
	driver  *exec.Cmd
	base    string
	client  *http.Client
	session string
	ended   chan struct{} // closed when the driver is gone
}

// Start opens a window.
func Start(ctx context.Context, o Options) (*Browser, error) {
	b := &Browser{ended: make(chan struct{})}
	// The first process of a new process namespace: all that it starts ends with it.
	b.driver = exec.Command("unshare", "--pid", "--mount-proc", "--fork", "--kill-child=SIGKILL",
		"nsenter", "--net="+o.Namespace, "chromedriver", "--port=0")
	b.driver.Env = append(os.Environ(), "HOME="+o.Dir, "TMPDIR="+o.Dir)
	b.driver.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := b.driver.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start chromedriver: %w", err)
	}
	if err := b.run(); err != nil {
		return nil, fmt.Errorf("start chromedriver: %w", err)
	}
	port, err := b.port(ctx, out)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start chromedriver: %w", err), b.Close())
	}
	b.base = "http://127.0.0.1:" + port
	b.client = &http.Client{Timeout: time.Minute, Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
		err = thread.In(o.Namespace, func() (err error) {
			c, err = (&net.Dialer{}).DialContext(ctx, network, address)
			return err
		})
		return c, err
	}}}
	if err := b.open(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("start chromium: %w", err), b.Close())
	}
	return b, nil
}

// run starts the driver on a thread that stays: the kernel sends the signal of
// a parent's death when the thread ends that was the parent.
func (b *Browser) run() error {
	begun := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := b.driver.Start()
		begun <- err
		if err == nil {
			_ = b.driver.Wait() // killed by us, or missed at the next command
		}
		close(b.ended)
	}()
	return <-begun
}

var started = regexp.MustCompile(`started successfully on port ([0-9]+)`)

// port is the driver's word, where it listens. What it says after that is
// read and dropped.
func (b *Browser) port(ctx context.Context, out io.Reader) (string, error) {
	found := make(chan string, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if m := started.FindStringSubmatch(lines.Text()); m != nil {
				found <- m[1]
			}
		}
	}()
	select {
	case port := <-found:
		return port, nil
	case <-b.ended:
		return "", errors.New("it ended; Debian's packages chromium and chromium-driver have it")
	case <-time.After(30 * time.Second):
		return "", errors.New("it does not say where it listens")
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

func (b *Browser) open(ctx context.Context, o Options) error {
	args := []string{
		"--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
		"--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1000,600", "--user-data-dir=" + o.Dir + "/profile",
	}
	if len(o.Hosts) > 0 {
		args = append(args, "--host-resolver-rules="+strings.Join(o.Hosts, ","))
	}
	if len(o.Keys) > 0 {
		args = append(args, "--ignore-certificate-errors-spki-list="+strings.Join(o.Keys, ","))
	}
	var session struct{ SessionID string }
	err := b.ask(ctx, http.MethodPost, "/session", map[string]any{"capabilities": map[string]any{"alwaysMatch": map[string]any{
		"browserName": "chrome", "goog:chromeOptions": map[string]any{"args": args},
	}}}, &session)
	b.session = "/session/" + session.SessionID
	return err
}

// ask sends one command of WebDriver.
func (b *Browser) ask(ctx context.Context, method, path string, body, into any) error {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return err
		}
		content = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, b.base+path, content)
	if err != nil {
		return err
	}
	resp, err := b.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var answer struct{ Value json.RawMessage }
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		return fmt.Errorf("read chromedriver's answer: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		var failure struct{ Error, Message string }
		if err := json.Unmarshal(answer.Value, &failure); err != nil {
			return fmt.Errorf("read chromedriver's answer: %w", err)
		}
		message, _, _ := strings.Cut(failure.Message, "\n")
		return fmt.Errorf("%s: %s", failure.Error, message)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer.Value, into)
}

// Page is what a window shows.
type Page struct {
	URL, Title, Text string
	// Protocol is how the page came, by its ALPN name: "h2" or "http/1.1".
	Protocol string
	// Secure says that the browser trusts where it came from.
	Secure bool
}

const look = `return {
  URL: location.href, Title: document.title, Text: document.body.innerText, Secure: window.isSecureContext,
  Protocol: performance.getEntriesByType("navigation")[0].nextHopProtocol,
}`

// Load opens a URL and returns when the page is there.
func (b *Browser) Load(ctx context.Context, url string) (p Page, err error) {
	if err := b.ask(ctx, http.MethodPost, b.session+"/url", map[string]any{"url": url}, nil); err != nil {
		return p, fmt.Errorf("load %s: %w", url, err)
	}
	if err := b.Run(ctx, look, &p); err != nil {
		return p, fmt.Errorf("look at %s: %w", url, err)
	}
	return p, nil
}

// Run runs a function's body in the page and returns what it returns, or what
// its promise becomes.
func (b *Browser) Run(ctx context.Context, body string, into any) error {
	return b.ask(ctx, http.MethodPost, b.session+"/execute/sync", map[string]any{"script": body, "args": []any{}}, into)
}

// Resize gives the window a size in pixels.
func (b *Browser) Resize(ctx context.Context, width, height int) error {
	return b.ask(ctx, http.MethodPost, b.session+"/window/rect", map[string]any{"width": width, "height": height}, nil)
}

// Screenshot is the window as a PNG.
func (b *Browser) Screenshot(ctx context.Context) ([]byte, error) {
	var text string
	if err := b.ask(ctx, http.MethodGet, b.session+"/screenshot", nil, &text); err != nil {
		return nil, fmt.Errorf("take a screenshot: %w", err)
	}
	return base64.StdEncoding.DecodeString(text)
}

// Close ends the browser and all of its processes.
func (b *Browser) Close() error {
	err := b.driver.Process.Kill()
	<-b.ended
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}
