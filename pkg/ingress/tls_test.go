package ingress

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
)

// certificate is a self-signed TLS Secret.
func certificate(t *testing.T, name string, until time.Time, hosts ...string) *cluster.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: hosts,
		NotBefore: now.Add(-100 * time.Hour), NotAfter: until,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &cluster.Secret{ObjectName: objectName(name), Type: "kubernetes.io/tls", Data: map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}),
	}}
}

func TestCertificates(t *testing.T) {
	good, past := now.Add(time.Hour), now.Add(-time.Hour)
	for _, c := range []struct {
		name      string
		ingresses []*cluster.Ingress
		secrets   []*cluster.Secret
		server    string
		want      string   // the Secret of the certificate served
		told      []string // about the first Ingress
	}{
		{name: "by host", server: "a.com", want: "default/crt",
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{certificate(t, "crt", good, "a.com")}},
		{name: "wildcard", server: "x.a.com", want: "default/crt",
			ingresses: []*cluster.Ingress{ing("i", "host x.a.com", "Prefix / web:80", "tls crt *.a.com")},
			secrets:   []*cluster.Secret{certificate(t, "crt", good, "*.a.com")}},
		{name: "exact before wildcard", server: "x.a.com", want: "default/exact",
			ingresses: []*cluster.Ingress{ing("i", "host x.a.com", "Prefix / web:80", "tls crt *.a.com", "tls exact x.a.com")},
			secrets:   []*cluster.Secret{certificate(t, "crt", good, "*.a.com"), certificate(t, "exact", good, "x.a.com")}},
		{name: "no hosts: those of the rules", server: "a.com", want: "default/crt",
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt")},
			secrets:   []*cluster.Secret{certificate(t, "crt", good, "a.com")}},
		{name: "default", server: "other.com", want: "default/fallback",
			secrets: []*cluster.Secret{certificate(t, "fallback", good, "fallback.com")}},
		{name: "missing", server: "a.com", want: "default/fallback", told: []string{"Secret crt for host a.com does not exist"},
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{certificate(t, "fallback", good, "fallback.com")}},
		{name: "broken", server: "a.com", told: []string{"holds no certificate and key"},
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{{ObjectName: objectName("crt"), Data: map[string][]byte{"tls.crt": []byte("x"), "tls.key": []byte("SECRET")}}}},
		{name: "empty", server: "a.com", told: []string{"has no tls.crt and tls.key"},
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{{ObjectName: objectName("crt")}}},
		{name: "expired", server: "a.com", want: "default/crt", told: []string{"expired on 2026-06-01 11:00:00"},
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{certificate(t, "crt", past, "a.com")}},
		{name: "for another host", server: "a.com", told: []string{"is a certificate for b.com"},
			ingresses: []*cluster.Ingress{ing("i", "host a.com", "Prefix / web:80", "tls crt a.com")},
			secrets:   []*cluster.Secret{certificate(t, "crt", good, "b.com")}},
		{name: "the next of the same namespace", server: "a.com", want: "default/second", told: []string{"does not exist"},
			ingresses: []*cluster.Ingress{ing("i", "age 2", "host a.com", "Prefix / web:80", "tls crt a.com"), ing("j", "tls second a.com")},
			secrets:   []*cluster.Secret{certificate(t, "second", good, "a.com")}},
		{name: "never another tenant's", server: "a.com", told: []string{"does not exist"},
			ingresses: []*cluster.Ingress{ing("blue/i", "age 2", "host a.com", "Prefix / web:80", "tls crt a.com"), ing("green/j", "host a.com", "Prefix /x web:80", "tls second a.com")},
			secrets:   []*cluster.Secret{certificate(t, "green/second", good, "a.com")}},
		{name: "the older tenant's", server: "a.com", want: "blue/crt",
			ingresses: []*cluster.Ingress{ing("blue/i", "age 2", "host a.com", "Prefix / web:80", "tls crt a.com"), ing("green/j", "host a.com", "Prefix /x web:80", "tls second a.com")},
			secrets:   []*cluster.Secret{certificate(t, "blue/crt", good, "a.com"), certificate(t, "green/second", good, "a.com")}},
	} {
		w := world(Config{DefaultCertificate: objectName("fallback")}, c.ingresses...)
		w.Compile(now)
		for _, s := range c.secrets {
			w.SetSecret(s.ObjectName, s)
		}
		w.All()
		r := w.Compile(now)
		got := ""
		if cert := r.Program.Covers(c.server); cert != nil {
			got = cert.Secret.String()
		}
		if got != c.want {
			t.Errorf("%s: certificate %q, want %q", c.name, got, c.want)
		}
		if len(c.ingresses) > 0 {
			told(t, r, c.ingresses[0].String(), c.told...)
			for _, f := range r.Findings[c.ingresses[0].ObjectName] {
				if strings.Contains(f.Text, "SECRET") {
					t.Errorf("%s: a finding shows a Secret's content: %s", c.name, f.Text)
				}
			}
		}
	}
}

func TestCertificatesRotate(t *testing.T) {
	w := world(Config{}, ing("i", "host a.com", "Prefix / web:80", "tls crt a.com"))
	w.Compile(now)
	first, second := certificate(t, "crt", now.Add(time.Hour), "a.com"), certificate(t, "crt", now.Add(2*time.Hour), "a.com")
	w.SetSecret(first.ObjectName, first)
	one := w.Compile(now).Program.Covers("a.com")
	w.SetSecret(second.ObjectName, second)
	two := w.Compile(now).Program.Covers("a.com")
	if one == nil || two == nil || !two.NotAfter.After(one.NotAfter) {
		t.Errorf("from %v to %v", one, two)
	}
	// An hour on nobody said anything, yet it has expired.
	w.All()
	told(t, w.Compile(now.Add(3*time.Hour)), "i", "expired")
}

func TestRedirectToHTTPS(t *testing.T) {
	for _, c := range []struct {
		lines []string
		host  string
		path  string
		want  bool
	}{
		{[]string{"host a.com", "Prefix / web:80"}, "a.com", "/", false},
		{[]string{"host a.com", "Prefix / web:80", "tls crt a.com"}, "a.com", "/", true},
		{[]string{"host a.com", "Prefix / web:80", "tls -"}, "a.com", "/", true},
		{[]string{"host x.a.com", "Prefix / web:80", "tls crt *.a.com"}, "x.a.com", "/", true},
		{[]string{"host a.com", "Prefix / web:80", "host b.com", "Prefix / web:80", "tls crt a.com"}, "b.com", "/", false},
		{[]string{"host a.com", "Prefix / web:80", "tls crt a.com", "ingress.poplin.dev/ssl-redirect: false"}, "a.com", "/", false},
		{[]string{"host a.com", "Prefix / web:80", "nginx.ingress.kubernetes.io/force-ssl-redirect: true"}, "a.com", "/", true},
		{[]string{"host a.com", "Prefix / web:80", "Exact /.well-known/acme-challenge/tok web:80", "tls crt a.com"}, "a.com", "/.well-known/acme-challenge/tok", false},
		{[]string{"host a.com", "Prefix / web:80", "tls crt a.com"}, "a.com", "/.well-known/acme-challenge/tok", true},
	} {
		r := world(Config{}, ing("i", c.lines...)).Compile(now).Program.Match(c.host, c.path)
		if r.ToHTTPS != c.want {
			t.Errorf("%v %s%s: %v", c.lines, c.host, c.path, r.ToHTTPS)
		}
	}
}
