package store

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Owner is whom an address is reserved for.
type Owner struct{ ContainerID, IfName string }

const (
	markerPrefix = ".owner-"
	lineBreak    = "\r\n"
)

// content is what upstream writes into a reservation.
func (o Owner) content() string { return o.ContainerID + lineBreak + o.IfName }

func (o Owner) marker() string {
	sum := sha256.Sum256([]byte(o.content()))
	return markerPrefix + hex.EncodeToString(sum[:8])
}

// owner reads a reservation. It has none if it is no file, is empty, or holds
// what no CNI call could have put there.
func (s *Store) owner(name string) (Owner, bool) {
	content, err := s.read(name)
	if err != nil {
		return Owner{}, false
	}
	id, ifName, _ := strings.Cut(content, lineBreak)
	bad := func(r rune) bool { return r <= ' ' || r == 0x7f || r == '/' }
	if id == "" || strings.ContainsFunc(id, bad) || strings.ContainsFunc(ifName, bad) {
		return Owner{}, false
	}
	return Owner{id, ifName}, true
}
