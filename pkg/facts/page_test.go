package facts_test

import (
	"net/netip"
	"testing"

	"poplin.dev/poplin/pkg/facts"
)

// TestDiffers: what a replica serves otherwise is named, first what comes first.
func TestDiffers(t *testing.T) {
	one, two := netip.MustParseAddrPort("10.0.0.1:80"), netip.MustParseAddrPort("10.0.0.2:80")
	want := facts.Served{
		Route: "Ingress shop/web /", Backend: "Service shop/web:80", Endpoints: []netip.AddrPort{one, two}, Secret: "shop/tls", Fingerprint: "aa",
	}
	for says, change := range map[string]func(*facts.Served){
		"": func(s *facts.Served) { s.Endpoints = []netip.AddrPort{two, one} },
		"it shows no certificate, and should show the certificate of Secret shop/tls": func(s *facts.Served) { s.Secret, s.Fingerprint = "", "" },
		"it shows another certificate than Secret shop/tls has now":                   func(s *facts.Served) { s.Fingerprint = "bb" },
		"no route takes the request, and Ingress shop/web / should":                   func(s *facts.Served) { s.Route = "" },
		"Ingress shop/web / leads to Service shop/old:80, and should lead to Service shop/web:80": func(s *facts.Served) {
			s.Backend = "Service shop/old:80"
		},
		"it answers 503, and should answer what an endpoint does": func(s *facts.Served) { s.Status, s.Endpoints = 503, nil },
		"it asks endpoints [10.0.0.1:80] of Service shop/web:80, and should ask [10.0.0.1:80 10.0.0.2:80]": func(s *facts.Served) {
			s.Endpoints = []netip.AddrPort{one}
		},
	} {
		s := want
		change(&s)
		if got := s.Differs(want); got != says {
			t.Errorf("got  %q\nwant %q", got, says)
		}
	}
}
