package ingress

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"maps"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/program/web"
)

// secret is a Secret with its key pair, which is parsed once.
type secret struct {
	cluster.Secret
	parsed bool
	cert   *web.Certificate
	err    error
}

func (s *secret) certificate() (*web.Certificate, error) {
	if s.parsed {
		return s.cert, s.err
	}
	s.parsed = true
	crt, key := s.Data["tls.crt"], s.Data["tls.key"]
	if len(crt) == 0 || len(key) == 0 {
		s.err = fmt.Errorf("has no tls.crt and tls.key")
		return nil, s.err
	}
	pair, err := tls.X509KeyPair(crt, key)
	if err != nil {
		// The library's text may quote the input; the key must not reach an Event.
		s.err = fmt.Errorf("holds no certificate and key that belong together")
		return nil, s.err
	}
	s.cert = &web.Certificate{Secret: s.ObjectName, NotAfter: pair.Leaf.NotAfter, Certificate: pair}
	return s.cert, nil
}

// certificateFor chooses the certificate of a server name. The oldest claim
// with one decides the namespace: however broken its Secret is, another
// tenant's is never served instead.
func (c *Compiler) certificateFor(name string, claims []*claim, now time.Time, h *hostCompiler) *web.Certificate {
	var chosen *web.Certificate
	namespace := ""
	for _, cl := range claims {
		for _, s := range cl.secretsFor(name) {
			if namespace == "" {
				namespace = cl.Namespace
			}
			if name == "" || cl.Namespace != namespace {
				continue
			}
			cert, err := c.usable(cluster.ObjectName{Namespace: cl.Namespace, Name: s}, name, now)
			if err != nil {
				h.warn(cl, reason.InvalidCertificate, "spec.tls: Secret %s for host %s %v", s, name, err)
			}
			if chosen == nil {
				chosen = cert
			}
		}
	}
	return chosen
}

// usable returns the certificate of a Secret for a host. One that has expired
// is returned with an error: a client may still prefer it to none.
func (c *Compiler) usable(n cluster.ObjectName, host string, now time.Time) (*web.Certificate, error) {
	s := c.secrets[n]
	if s == nil {
		return nil, fmt.Errorf("does not exist")
	}
	cert, err := s.certificate()
	if err != nil {
		return nil, err
	}
	if err := cert.Leaf.VerifyHostname(strings.Replace(host, "*", "any", 1)); err != nil {
		return nil, fmt.Errorf("is a certificate for %s", strings.Join(cert.Leaf.DNSNames, ", "))
	}
	if now.After(cert.NotAfter) {
		return cert, fmt.Errorf("expired on %s", cert.NotAfter.UTC().Format(time.DateTime))
	}
	return cert, nil
}

func (c *Compiler) defaultCertificate() *web.Certificate {
	s := c.secrets[c.cfg.DefaultCertificate]
	if s == nil {
		return nil
	}
	cert, _ := s.certificate()
	return cert
}

// resolve fills in what an Ingress' annotations find in Secrets. Anything
// that fails closes the Ingress.
func (c *Compiler) resolve(cl *claim) {
	set := &cl.settings
	closed := func(key string, err error) {
		text := fmt.Sprintf("annotation %s %v", key, err)
		cl.warn(reason.InvalidAnnotation, "%s; until then every request is refused", text)
		if set.Closed == "" {
			set.Closed = text
		}
	}
	if set.Basic != nil {
		n := named(cl.Namespace, set.AuthSecret)
		users, err := c.users(cl, n, set.AuthMap)
		if err != nil {
			closed("auth-secret", err)
		}
		basic := *set.Basic
		basic.Secret, basic.Users = n, users
		set.Basic = &basic
	}
	if set.BackendCA != "" {
		if err := c.roots(cl, named(cl.Namespace, set.BackendCA), &set.Upstream); err != nil {
			closed("backend-ca-secret", err)
		}
	}
}

// named reads NAME or NAMESPACE/NAME.
func named(namespace, s string) cluster.ObjectName {
	if ns, name, found := strings.Cut(s, "/"); found {
		return cluster.ObjectName{Namespace: ns, Name: name}
	}
	return cluster.ObjectName{Namespace: namespace, Name: s}
}

// read returns a Secret's content and remembers who refers to it.
func (c *Compiler) read(cl *claim, n cluster.ObjectName) (map[string][]byte, error) {
	if err := authorize(cl.Namespace, "Secret", n); err != nil {
		return nil, err
	}
	cl.refer(n)
	s := c.secrets[n]
	if s == nil {
		return nil, fmt.Errorf("names Secret %s, which does not exist", n)
	}
	return s.Data, nil
}

func (c *Compiler) users(cl *claim, n cluster.ObjectName, byKey bool) (map[string]string, error) {
	data, err := c.read(cl, n)
	if err != nil {
		return nil, err
	}
	users := map[string]string{}
	if byKey {
		for user, hash := range data {
			users[user] = strings.TrimSpace(string(hash))
		}
	}
	for line := range strings.Lines(string(data["auth"])) {
		user, hash, found := strings.Cut(strings.TrimSpace(line), ":")
		if found && user != "" && !byKey && user[0] != '#' {
			users[user] = hash
		}
	}
	maps.DeleteFunc(users, func(_, hash string) bool { return hash == "" })
	if len(users) == 0 {
		return nil, fmt.Errorf("names Secret %s, which holds no users: put lines of htpasswd under its key auth", n)
	}
	return users, nil
}

func (c *Compiler) roots(cl *claim, n cluster.ObjectName, up *web.Upstream) error {
	data, err := c.read(cl, n)
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(data["ca.crt"]) {
		return fmt.Errorf("names Secret %s, which holds no certificate under its key ca.crt", n)
	}
	sum := sha256.Sum256(data["ca.crt"])
	up.Roots, up.RootsID = pool, hex.EncodeToString(sum[:])
	return nil
}
