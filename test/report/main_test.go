package main

import (
	"strings"
	"testing"
)

// TestRead: tests are counted, and those that took longest are told, the longest
// first; a part of a test is counted and not told.
func TestRead(t *testing.T) {
	s := &suite{output: map[string]*strings.Builder{}}
	if err := s.read(strings.NewReader(`
{"Action":"pass","Package":"p","Test":"TestShort","Elapsed":0.1}
{"Action":"pass","Package":"p","Test":"TestLong","Elapsed":12.4}
{"Action":"pass","Package":"p","Test":"TestLonger/part","Elapsed":60}
{"Action":"skip","Package":"p","Test":"TestLonger","Elapsed":61}
{"Action":"pass","Package":"p","Elapsed":80}
`)); err != nil {
		t.Fatal(err)
	}
	if s.passed != 3 || s.failed != 0 || s.skipped != 1 {
		t.Errorf("%d passed, %d failed, %d skipped; want 3, 0, 1", s.passed, s.failed, s.skipped)
	}
	if got, want := s.longest(), "    61 s p TestLonger\n    12 s p TestLong\n"; got != want {
		t.Errorf("got\n%swant\n%s", got, want)
	}
}
