// Package certificate makes certificates that only tests believe in. Input is
// the names that one is for; outputs are the key pair in the forms that
// clients, files and Secrets want. It refuses to last: a certificate is good
// for a day.
package certificate

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"time"
)

// Certificate vouches for itself.
type Certificate struct {
	// PEM and Key are the files.
	PEM, Key []byte
	// Leaf is the certificate.
	Leaf *x509.Certificate
}

// New makes a certificate for host names, the first of which may be a
// wildcard. No two are the same.
func New(hosts ...string) (*Certificate, error) {
	return Until(time.Now().Add(24*time.Hour), hosts...)
}

// Until makes one that is good until a time, which may be past.
func Until(end time.Time, hosts ...string) (*Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: hosts[0]}, DNSNames: hosts, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: end,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate for %v: %w", hosts, err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make certificate for %v: %w", hosts, err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("make certificate for %v: %w", hosts, err)
	}
	return &Certificate{
		PEM:  pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		Key:  pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
		Leaf: leaf,
	}, nil
}

// Secret is the TLS Secret that holds it, as JSON.
func (c *Certificate) Secret(namespace, name string) string {
	return fmt.Sprintf(`{"apiVersion":"v1","kind":"Secret","metadata":{"namespace":%q,"name":%q},"type":"kubernetes.io/tls","data":{"tls.crt":%q,"tls.key":%q}}`,
		namespace, name, base64.StdEncoding.EncodeToString(c.PEM), base64.StdEncoding.EncodeToString(c.Key))
}

// Roots believes in certificates, and in nothing else.
func Roots(certificates ...*Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c.Leaf)
	}
	return pool
}

// Fingerprint names the public key as browsers do: SHA-256, in base64.
func (c *Certificate) Fingerprint() string {
	sum := sha256.Sum256(c.Leaf.RawSubjectPublicKeyInfo)
	return base64.StdEncoding.EncodeToString(sum[:])
}
