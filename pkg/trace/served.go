package trace

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/web"
)

// Served is what a table makes of a visit, in words that can be compared with
// those of another table.
func Served(p *web.Program, v facts.Visit) (s facts.Served) {
	a := HTTP(p, Request{TLS: v.TLS, Host: v.Host, Path: v.Path, Client: v.Client})
	s.Status, s.Endpoints = a.Status, a.Endpoints
	if r := a.Route; r != nil {
		s.Route = strings.TrimSpace("Ingress " + r.Ingress.String() + " " + r.Path)
		s.Backend = "Service " + r.Backend.String()
	}
	if c := a.Certificate; c != nil {
		s.Secret = c.Secret.String()
		if len(c.Certificate.Certificate) > 0 {
			sum := sha256.Sum256(c.Certificate.Certificate[0])
			s.Fingerprint = hex.EncodeToString(sum[:])
		}
	}
	return s
}
