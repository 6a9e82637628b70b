package htpasswd

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"sync"
)

const (
	// maxHashing bounds how many slow hashes are computed at once: guessing
	// passwords must not take the machine from those who know theirs.
	maxHashing = 2
	// maxProven bounds the memory of passwords that were right.
	maxProven = 10000
)

// Prover remembers which passwords were right, by a digest with a secret of
// this process: a slow hash is made to be slow once, not on every request.
type Prover struct {
	hashing chan struct{}
	key     [32]byte

	mu     sync.Mutex
	proven map[[32]byte]bool
}

// NewProver remembers nothing.
func NewProver() *Prover {
	p := &Prover{hashing: make(chan struct{}, maxHashing), proven: map[[32]byte]bool{}}
	rand.Read(p.key[:])
	return p
}

// Proves reports whether the password is the one of the hash. While many ask
// it makes them wait their turn, until ctx ends.
func (p *Prover) Proves(ctx context.Context, hash, password string) bool {
	mac := hmac.New(sha256.New, p.key[:])
	fmt.Fprintf(mac, "%d:%s%s", len(hash), hash, password)
	id := [32]byte(mac.Sum(nil))
	p.mu.Lock()
	proven := p.proven[id]
	p.mu.Unlock()
	if proven {
		return true
	}
	select {
	case p.hashing <- struct{}{}:
		defer func() { <-p.hashing }()
	case <-ctx.Done():
		return false
	}
	if ok, err := Match(hash, password); !ok || err != nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.proven) >= maxProven {
		clear(p.proven)
	}
	p.proven[id] = true
	return true
}
