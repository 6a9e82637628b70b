// Package judge reaches authentication servers. Input is what an Ingress'
// owner wrote of them; outputs are a client for questions and the address of
// the page where people sign in. It refuses addresses that only this machine
// reaches.
package judge

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

// Time bounds a question.
const Time = 10 * time.Second

// Client asks, and follows no redirect: that is an answer too.
func Client() *http.Client {
	dialer := &net.Dialer{Timeout: 5 * time.Second, Control: notOurselves}
	return &http.Client{
		Timeout: Time,
		Transport: &http.Transport{
			DialContext: dialer.DialContext, MaxIdleConnsPerHost: 128, IdleConnTimeout: 4 * time.Second,
			TLSHandshakeTimeout: 5 * time.Second, DisableCompression: true, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// notOurselves refuses what only this machine may reach: an annotation must
// not turn the proxy on its own ports or on a cloud's metadata server.
func notOurselves(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	if a := at.Addr().Unmap(); err != nil || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsUnspecified() || a.IsMulticast() {
		return fmt.Errorf("%s is no address of an authentication server", address)
	}
	return nil
}

// SignIn is where the browser goes, and comes back from by "rd".
func SignIn(t web.Template, r web.Request) string {
	to := t.Fill(r)
	if u, err := url.Parse(to); err == nil && !u.Query().Has("rd") {
		sep := "?"
		if strings.Contains(to, "?") {
			sep = "&"
		}
		to += sep + "rd=" + url.QueryEscape(r.Scheme+"://"+r.Host+r.URI)
	}
	return to
}
