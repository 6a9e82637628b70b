package corpus

import (
	"slices"
	"strings"
	"testing"
)

// TestCorpus: there are as many faults as are promised, at every hop, and each
// says what it is.
func TestCorpus(t *testing.T) {
	faults, err := Read()
	if err != nil {
		t.Fatal(err)
	}
	var doubles, late, open int
	at := map[string]int{}
	for _, f := range faults {
		at[f.Hop]++
		if f.Open != "" {
			open++
		}
		if f.Double {
			doubles++
		}
		if f.Late {
			late++
		}
		if f.About == "" || !strings.HasSuffix(f.About, ".") {
			t.Errorf("%s: want a sentence that says what it is, got %q", f.Name, f.About)
		}
	}
	for _, hop := range Hops {
		if at[hop] == 0 {
			t.Errorf("no fault is at %s", hop)
		}
	}
	if len(faults) < 60 || doubles < 10 || late < 10 {
		t.Errorf("%d faults, %d of them double and %d late; want 60, 10 and 10", len(faults), doubles, late)
	}
	t.Logf("%d faults, %d of them double, %d late and %d open; by hop: %v", len(faults), doubles, late, open, at)
}

func TestParse(t *testing.T) {
	const good = "Something.\npath: pod to pod, udp, ipv6\nhop: route\nopen: unseen\n-- break --\nnear a\nfails\nkubectl b -f c.yaml\n-- mend --\nfar d\n-- twin --\nlan e\n-- c.yaml --\nx: y\n"
	f, err := parse(good)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Step{{"near", "a"}, {"fails", ""}, {"kubectl", "kubectl b -f c.yaml"}}; !slices.Equal(f.Break, want) {
		t.Errorf("break is %v, want %v", f.Break, want)
	}
	if want := (Path{Kind: PodToPod, UDP: true, Family: 6}); f.Path != want || f.About != "Something." || f.Hop != "route" || f.Open != "unseen" {
		t.Errorf("%+v", f)
	}
	if !slices.Equal(f.MendTwin, f.Mend) || f.files["c.yaml"] != "x: y\n" {
		t.Errorf("%+v", f)
	}
	for part, wrong := range map[string]string{"pod to pod": "pod to moon", "udp": "quick", "hop: route": "hop: moon", "near a": "nowhere a", "-- twin --": "-- twins --"} {
		if _, err := parse(strings.Replace(good, part, wrong, 1)); err == nil {
			t.Errorf("%q in place of %q is no error", wrong, part)
		}
	}
}
