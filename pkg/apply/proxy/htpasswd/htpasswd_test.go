package htpasswd

import (
	"errors"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		hash, password string
		want           bool
	}{
		// openssl passwd -apr1 -salt SALT PASSWORD
		{"$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "secret", true},
		{"$apr1$xy$KxmdrfN9bM349rhL/E00Q.", "a considerably longer password than 16 bytes", true},
		{"$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "Secret", false},
		{"$apr1$saltsalt$LrttParrLPdxvgutaSXWJ0", "", false},
		{"$apr1$saltsalt", "secret", false},
		// printf secret | openssl sha1 -binary | base64
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret", true},
		{"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secrets", false},
		{"$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", "password", true},
		{"$2y$05$bvIG6Nmid91Mu9RcmmWZfO5HJIMCT8riNW0hEp8f6/FuA2/mHZFpe", "passwort", false},
	} {
		if got, err := Match(c.hash, c.password); err != nil || got != c.want {
			t.Errorf("%s %q: %v, %v", c.hash, c.password, got, err)
		}
	}
	for _, hash := range []string{"", "secret", "$6$salt$x", "{SSHA}x"} {
		if ok, err := Match(hash, hash); ok || !errors.Is(err, ErrHash) || Known(hash) {
			t.Errorf("%q: %v, %v", hash, ok, err)
		}
	}
}
