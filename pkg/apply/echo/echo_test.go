package echo

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"
)

func TestEcho(t *testing.T) {
	// An address that was free a moment ago, and one where nobody listens.
	var free [2]string
	for i := range free {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		free[i] = l.Addr().String()
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
	}
	there, nowhere := free[0], free[1]
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- Serve(ctx, "pod-a", there) }()
	list := []Question{
		{Address: there}, {Address: there, Size: 300_000}, {Address: there, UDP: true, Size: 1400},
		{Address: nowhere}, {Address: nowhere, UDP: true},
	}
	var answers []Answer
	for range 50 { // until it listens
		if answers = Ask(t.Context(), list, 2*time.Second); answers[0].Problem+answers[1].Problem+answers[2].Problem == "" {
			break
		}
		time.Sleep(100 * time.Millisecond)
	}
	for i, want := range []string{"pod-a", "pod-a", "", "", ""} {
		if a := answers[i]; a.Name != want || (a.Problem == "") != (i < 3) || i >= 3 && !strings.Contains(a.Problem, "refused") {
			t.Errorf("%+v: %+v", list[i], a)
		}
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
