package bandwidth

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, row := range []struct {
		raw  string
		want Limits
		err  string
	}{
		{raw: ``},
		{raw: `{}`},
		{raw: `{"ingressRate":0,"ingressBurst":0,"egressRate":0,"egressBurst":0}`},
		{raw: `{"ingressRate":8000000,"ingressBurst":800000}`, want: Limits{Ingress: Rate{1_000_000, 100_000}}},
		{raw: `{"egressRate":8000,"egressBurst":0}`, want: Limits{Egress: Rate{1000, 64 << 10}}},
		// As containerd says it: no opinion.
		{raw: `{"IngressRate":80000000,"IngressBurst":4294967295,"EgressRate":0,"EgressBurst":0}`, want: Limits{Ingress: Rate{10_000_000, 500_000}}},
		{raw: `{"ingressRate":1}`, err: "runtimeConfig.bandwidth.ingressRate: 1 bits per second are outside 8.."},
		{raw: `{"egressRate":10000000000000000}`, err: "egressRate: 10000000000000000 bits"},
		{raw: `{"egressBurst":8}`, err: "egressBurst: 8 bits without egressRate"},
		{raw: `{"egressRate":-8}`, err: "egressRate: cannot use -8"},
		{raw: `{"rate":8}`, err: "rate: unknown key"},
		{raw: `"10M"`, err: "want a JSON object"},
	} {
		got, err := Parse([]byte(row.raw))
		if got != row.want || (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: %+v, %v, want %+v, %q", row.raw, got, err, row.want, row.err)
		}
	}
}
