package reach

import (
	"errors"
	"strings"
	"testing"
)

func TestOrder(t *testing.T) {
	e, err := New([]string{"https://a:1", "https://b", "https://[fd00::1]:2"}, []string{"c:3", "a:1"}, "d:4", nil)
	if err != nil {
		t.Fatal(err)
	}
	order := func(want string) {
		t.Helper()
		if got := strings.Join(e.candidates(), " "); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	bad := errors.New("refused")
	order("a:1 b:443 [fd00::1]:2 c:3 d:4")
	e.tried("a:1", bad)
	e.tried("c:3", bad)
	order("b:443 [fd00::1]:2 d:4 a:1 c:3")
	e.tried("a:1", bad)
	order("b:443 [fd00::1]:2 d:4 c:3 a:1")
	e.tried("c:3", nil)
	order("b:443 [fd00::1]:2 c:3 d:4 a:1")
	if e.InUse() != "c:3" {
		t.Errorf("in use: %s", e.InUse())
	}
	e.Replace([]string{"x:9"})
	order("b:443 [fd00::1]:2 x:9 d:4 a:1")
	if len(e.failed) != 1 {
		t.Errorf("remembers %v", e.failed)
	}
}

func TestNewRefuses(t *testing.T) {
	if _, err := New(nil, nil, "", nil); err == nil || !strings.Contains(err.Error(), "apiServer.endpoints") {
		t.Errorf("nothing: %v", err)
	}
	if _, err := New([]string{"a:b:c"}, nil, "", nil); err == nil {
		t.Error("accepted")
	}
}
