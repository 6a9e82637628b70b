package machine

import "testing"

func TestSessionNice(t *testing.T) {
	for line, want := range map[string]int{"/autogroup-7 nice 0\n": 0, "/autogroup-123 nice -10\n": -10} {
		if got, err := sessionNice(line); err != nil || got != want {
			t.Errorf("%q: %d, %v, want %d", line, got, err, want)
		}
	}
	if _, err := sessionNice("/autogroup-7\n"); err == nil {
		t.Error("a line without a priority was read")
	}
}
