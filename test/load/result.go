package load

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// Result is what has become of a load.
type Result struct {
	Took time.Duration
	// Sent packets, and when those were sent that did not arrive, or whose
	// answer did not.
	Sent                int
	LostThere, LostBack []time.Duration
	// Silence is the longest time between two answers.
	Silence time.Duration
	// Connections that were made, and bytes that the long one carried each way.
	Connections, Streamed int
	// SentAgain are TCP segments that the kernel sent more than once, also
	// because an acknowledgement came late.
	SentAgain int
	// Failed are connections that were not made, or broke.
	Failed []string
}

// Lost counts packets, both ways.
func (r Result) Lost() int { return len(r.LostThere) + len(r.LostBack) }

func (r Result) String() string {
	s := fmt.Sprintf("%d packets in %v (%.0f/s), lost %d there and %d back, longest silence %v; TCP: %d short connections, %d KiB each way on a long one, %d segments sent again, %d failed",
		r.Sent, r.Took.Round(time.Millisecond), float64(r.Sent)/r.Took.Seconds(), len(r.LostThere), len(r.LostBack), r.Silence.Round(time.Millisecond),
		r.Connections, r.Streamed>>10, r.SentAgain, len(r.Failed))
	for _, l := range []struct {
		way string
		at  []time.Duration
	}{{"there", r.LostThere}, {"back", r.LostBack}} {
		if len(l.at) > 0 {
			s += fmt.Sprintf("\nlost %s, sent at: %v", l.way, spans(l.at))
		}
	}
	if len(r.Failed) > 0 {
		s += "\n" + strings.Join(r.Failed, "\n")
	}
	return s
}

// spans joins times that follow each other closely.
func spans(at []time.Duration) (list []string) {
	for i := 0; i < len(at); {
		j := i
		for j+1 < len(at) && at[j+1]-at[j] < 10*every {
			j++
		}
		list = append(list, fmt.Sprintf("%v to %v (%d)", at[i].Round(time.Millisecond), at[j].Round(time.Millisecond), j-i+1))
		i = j + 1
	}
	return list
}

// Lossless logs the result, and fails a test where anything was lost.
func (r Result) Lossless(t testing.TB) {
	t.Helper()
	r.Loses(t, 0)
}

// Loses logs the result, and fails a test where more than so many packets
// were lost, or any connection, or where there was no load.
func (r Result) Loses(t testing.TB, most int) {
	t.Helper()
	t.Log(r)
	if r.Sent == 0 || r.Connections == 0 || r.Streamed == 0 {
		t.Error("there was no load")
	}
	if r.Lost() > most || len(r.Failed) > 0 {
		t.Errorf("%d packets lost, at most %d may be; %d connections failed, none may", r.Lost(), most, len(r.Failed))
	}
}
