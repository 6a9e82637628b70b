package daemon

import (
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/pkg/loop"
)

func TestAlive(t *testing.T) {
	s := &state{pulse: loop.NewPulse()}
	if err := s.alive(); err != nil {
		t.Errorf("before the first pass: %v", err)
	}
	s.pass = time.Now()
	if err := s.alive(); err != nil {
		t.Errorf("just after a pass: %v", err)
	}
	s.pass = time.Now().Add(-stalled)
	if err := s.alive(); err == nil || !strings.Contains(err.Error(), "last pass ended 5m0s ago") {
		t.Errorf("long after a pass: %v", err)
	}
}

func TestOverlayWaits(t *testing.T) {
	s := &state{}
	if got := s.overlayWaits(); got != "a complete view of the cluster" {
		t.Errorf("before the first pass: %q", got)
	}
	s.pass = time.Now()
	if got := s.overlayWaits(); got == "" {
		t.Error("not in place, but nothing is waited for")
	}
	s.fabric = overlay.State{InPlace: true}
	if got := s.overlayWaits(); got != "" {
		t.Errorf("in place: %q", got)
	}
}
