package progress

import (
	"errors"
	"strings"
	"testing"
)

func TestDo(t *testing.T) {
	var out strings.Builder
	s := New(&out)
	if err := s.Do("first", func() error { s.Say("on the way: %d", 1); return nil }); err != nil {
		t.Fatal(err)
	}
	cause := errors.New("no")
	if err := s.Do("second", func() error { return cause }); !errors.Is(err, cause) || err.Error() != "second: no" {
		t.Errorf("got %v", err)
	}
	if got, want := out.String(), "         on the way: 1\n   0.0s  first\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
