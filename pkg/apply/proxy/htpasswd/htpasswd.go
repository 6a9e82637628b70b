// Package htpasswd checks passwords against the hashes that htpasswd(1) and
// openssl-passwd(1) write. Inputs are a hash and a password; output is whether
// they belong together. It refuses hashes it does not know, and plain text.
package htpasswd

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"strings"

	"golang.org/x/crypto/bcrypt"
)

// ErrHash says that a hash is of no known kind.
var ErrHash = errors.New("hash is neither bcrypt ($2y$), MD5 ($apr1$) nor SHA-1 ({SHA})")

// Known reports whether Match understands a hash.
func Known(hash string) bool { return kind(hash) != unknown }

const (
	unknown = iota
	bcryptHash
	apr1Hash
	sha1Hash
)

func kind(hash string) int {
	switch {
	case strings.HasPrefix(hash, "$2y$"), strings.HasPrefix(hash, "$2a$"), strings.HasPrefix(hash, "$2b$"):
		return bcryptHash
	case strings.HasPrefix(hash, "$apr1$"):
		return apr1Hash
	case strings.HasPrefix(hash, "{SHA}"):
		return sha1Hash
	}
	return unknown
}

// Match reports whether the password is the one of the hash.
func Match(hash, password string) (bool, error) {
	switch kind(hash) {
	case bcryptHash:
		// 72 bytes are all that bcrypt looks at; the library refuses more.
		if len(password) > 72 {
			password = password[:72]
		}
		return bcrypt.CompareHashAndPassword([]byte(hash), []byte(password)) == nil, nil
	case apr1Hash:
		salt, _, found := strings.Cut(hash[len("$apr1$"):], "$")
		return found && equal(hash, apr1(password, salt)), nil
	case sha1Hash:
		sum := sha1.Sum([]byte(password))
		return equal(hash, "{SHA}"+base64.StdEncoding.EncodeToString(sum[:])), nil
	}
	return false, ErrHash
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// apr1 is Apache's variant of the MD5 crypt of FreeBSD: a thousand rounds
// whose input alternates between password, salt and the round before.
func apr1(password, salt string) string {
	const rounds = 1000
	if len(salt) > 8 {
		salt = salt[:8]
	}
	pw := []byte(password)
	inner := md5.Sum([]byte(password + salt + password))

	h := md5.New()
	h.Write([]byte(password + "$apr1$" + salt))
	for left := len(pw); left > 0; left -= md5.Size {
		h.Write(inner[:min(left, md5.Size)])
	}
	for bits := len(pw); bits > 0; bits >>= 1 {
		switch {
		case bits&1 == 1:
			h.Write([]byte{0})
		default:
			h.Write(pw[:1])
		}
	}
	sum := h.Sum(nil)
	for i := range rounds {
		h.Reset()
		if i%2 == 1 {
			h.Write(pw)
		} else {
			h.Write(sum)
		}
		if i%3 != 0 {
			h.Write([]byte(salt))
		}
		if i%7 != 0 {
			h.Write(pw)
		}
		if i%2 == 1 {
			h.Write(sum)
		} else {
			h.Write(pw)
		}
		sum = h.Sum(sum[:0])
	}
	return "$apr1$" + salt + "$" + encode(sum)
}

// encode is crypt's own base 64: bytes in a shuffled order, six bits at a
// time from the lowest.
func encode(sum []byte) string {
	const alphabet = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	var b strings.Builder
	put := func(v uint, digits int) {
		for range digits {
			b.WriteByte(alphabet[v&63])
			v >>= 6
		}
	}
	for i := range 5 {
		low := i + 12
		if i == 4 {
			low = 5
		}
		put(uint(sum[i])<<16|uint(sum[i+6])<<8|uint(sum[low]), 4)
	}
	put(uint(sum[11]), 2)
	return b.String()
}
