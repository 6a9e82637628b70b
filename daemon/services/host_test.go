package services

import (
	"fmt"
	"testing"
	"time"
)

func TestConntrackSettings(t *testing.T) {
	text := func(c Conntrack, cpus int) (s string) {
		for _, set := range c.settings(cpus) {
			s += fmt.Sprintln(set.Key, set.Value, set.AtLeast)
		}
		return s
	}
	for want, got := range map[string]string{
		"": text(Conntrack{}, 64),
		`netfilter/nf_conntrack_max 131072 true
netfilter/nf_conntrack_buckets 32768 true
`: text(Conntrack{MaxPerCore: 32768, Min: 131072}, 2),
		`netfilter/nf_conntrack_max 1048576 true
netfilter/nf_conntrack_buckets 262144 true
netfilter/nf_conntrack_tcp_timeout_established 86400 false
netfilter/nf_conntrack_udp_timeout_stream 2 false
netfilter/nf_conntrack_tcp_be_liberal 1 false
`: text(Conntrack{MaxPerCore: 32768, TCPEstablished: 24 * time.Hour, UDPStream: 1500 * time.Millisecond, TCPBeLiberal: true}, 64),
	} {
		if got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
}
