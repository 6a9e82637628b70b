package flows

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

func TestRows(t *testing.T) {
	ap := netip.MustParseAddrPort
	known := func(src, dst, to string, answered bool) facts.Known {
		return facts.Known{Proto: service.TCP, Src: ap(src), Dst: ap(dst), To: ap(to), Answered: answered}
	}
	names := Names{}
	for a, name := range map[string]string{"10.244.1.5": "pod shop/web", "10.244.2.7": "pod shop/db", "10.96.0.9": "service shop/db", "172.30.0.11": "node worker-1"} {
		names.add(name, []netip.Addr{netip.MustParseAddr(a)})
	}
	nodes := [][]facts.Known{
		{ // the client's node, which translates
			known("10.244.1.5:4001", "10.96.0.9:5432", "10.244.2.7:5432", true),
			known("10.244.1.5:4002", "10.96.0.9:5432", "10.244.2.7:5432", false),
			known("10.244.1.5:4003", "198.51.100.1:443", "198.51.100.1:443", true),
			known("127.0.0.1:5", "127.0.0.1:6", "127.0.0.1:6", true),
		},
		{ // the server's, which sees the same two
			known("10.244.1.5:4001", "10.244.2.7:5432", "10.244.2.7:5432", true),
			known("10.244.1.5:4002", "10.244.2.7:5432", "10.244.2.7:5432", false),
			known("172.30.0.11:9000", "10.244.2.7:8080", "10.244.2.7:8080", true),
		},
	}
	want := []Row{
		{From: "pod shop/web", Via: "service shop/db:5432", To: "pod shop/db", Port: "tcp/5432", Count: 2, Unanswered: 1},
		{From: "node worker-1", To: "pod shop/db", Port: "tcp/8080", Count: 1},
		{From: "pod shop/web", To: "198.51.100.1", Port: "tcp/443", Count: 1},
	}
	if got := Rows(nodes, names, ""); !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	slices.Reverse(nodes)
	if got := Rows(nodes, names, ""); !slices.Equal(got, want) {
		t.Errorf("the nodes' order makes a difference: %+v", got)
	}
	if got := Rows(nodes, names, "worker-1"); !slices.Equal(got, want[1:2]) {
		t.Errorf("%+v", got)
	}
	var b strings.Builder
	if err := Text(&b, want); err != nil || !strings.Contains(b.String(), "service shop/db:5432") {
		t.Errorf("%v %s", err, b.String())
	}
}
