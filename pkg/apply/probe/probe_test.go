package probe

import "testing"

// Packets are sent in test/netns; this is what is made of their answers.
func TestJudge(t *testing.T) {
	for _, tt := range []struct {
		name    string
		answers string // of what is asked in turn: o and s as sent, - for silence
		want    Verdict
	}{
		{"at once", "o", Works},
		{"one lost", "-so", Works},
		{"two lost", "-s-so", Works},
		{"spoilt", "-s-s-s", Faulty},
		{"nobody answers", "--", Unknown},
		{"the peer stops to answer", "-s--", Unknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			left := tt.answers
			got := judge(func(software bool) bool {
				if left == "" {
					t.Fatal("asked once more")
				}
				a := left[0]
				left = left[1:]
				if want := map[bool]byte{true: 's', false: 'o'}[software]; a != '-' && a != want {
					t.Fatalf("asked for %c, want %c", want, a)
				}
				return a != '-'
			})
			if got != tt.want || left != "" {
				t.Errorf("got %v, %q not asked, want %v", got, left, tt.want)
			}
		})
	}
}
