package status

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Access says who may read metrics.
type Access interface {
	// MayGet says whose token it is, and whether they may get the path. user
	// is empty where it is nobody's; an error says that there is no verdict.
	MayGet(ctx context.Context, token, path string) (user string, allowed bool, err error)
}

// guard lets those pass who may get what they ask for, as kube-rbac-proxy and
// controller-runtime do: what Prometheus is configured with for those, it is
// for this.
func (m *Module) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
		if !strings.EqualFold(scheme, "Bearer") || token == "" {
			unauthorized(w)
			return
		}
		user, allowed, err := m.deps.Access.MayGet(r.Context(), token, r.URL.Path)
		switch {
		case err != nil:
			m.deps.Log.Warn("cannot tell who may read metrics", "from", r.RemoteAddr, "error", err)
			http.Error(w, "the API server does not say who may read this", http.StatusServiceUnavailable)
		case user == "":
			unauthorized(w)
		case !allowed:
			http.Error(w, fmt.Sprintf("%s may not get %s", user, r.URL.Path), http.StatusForbidden)
		default:
			next.ServeHTTP(w, r)
		}
	})
}

func unauthorized(w http.ResponseWriter) {
	w.Header().Set("WWW-Authenticate", "Bearer")
	http.Error(w, "a token of an account of the cluster is needed", http.StatusUnauthorized)
}

const (
	// selfSigned is how long a certificate that the daemon makes is good for;
	// it is made anew at half of that.
	selfSigned = 365 * 24 * time.Hour
	// reload is how often the files of a given certificate are read again.
	reload = time.Minute
)

// certificate is a given one, or one that signs itself: what asks for metrics
// knows the address of a node, but rarely its certificate.
type certificate struct {
	node, certFile, keyFile string

	mu   sync.Mutex
	pair *tls.Certificate
	due  time.Time // when it is read or made again
}

func (c *certificate) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: c.get}
}

func (c *certificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if now.Before(c.due) {
		return c.pair, nil
	}
	pair, next, err := c.load(now)
	switch {
	case err == nil:
		c.pair, c.due = pair, next
	case c.pair == nil:
		return nil, err
	default: // half written, say: the old one is better than none
		c.due = now.Add(time.Second)
	}
	return c.pair, nil
}

func (c *certificate) load(now time.Time) (pair *tls.Certificate, next time.Time, err error) {
	if c.certFile == "" {
		pair, err = c.sign(now)
		return pair, now.Add(selfSigned / 2), err
	}
	given, err := tls.LoadX509KeyPair(c.certFile, c.keyFile)
	return &given, now.Add(reload), err
}

func (c *certificate) sign(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "poplind@" + c.node}, DNSNames: []string{c.node},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(selfSigned),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}
