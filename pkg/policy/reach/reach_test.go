package reach_test

import (
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/reach"
)

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}

// Both ends' nodes are asked, each for its own pods, in each common family.
func TestExplain(t *testing.T) {
	pod := func(name, node string, list ...string) policy.Pod {
		return policy.Pod{Key: policy.Key{Namespace: "shop", Name: name}, Node: node, Labels: map[string]string{"app": name}, Addresses: addrs(list...)}
	}
	closed := &policy.Rules{}
	six := policy.Peer{Block: netip.MustParsePrefix("fd00::/16")}
	c := reach.New(policy.Objects{
		Pods: []policy.Pod{
			pod("web", "one", "10.0.0.1", "fd00::1"), pod("db", "two", "10.0.0.2", "fd00::2"), pod("four", "two", "10.0.0.4"), pod("six", "two", "fd00::6"),
			pod("new", "two"),
		},
		Namespaces: []policy.Namespace{{Name: "shop"}},
		Nodes:      []policy.Node{{Name: "one", Addresses: addrs("172.30.0.11")}, {Name: "two", Addresses: addrs("172.30.0.12")}},
		Policies: []policy.NetworkPolicy{
			{Key: policy.Key{Namespace: "shop", Name: "out"}, Pods: selector("web"), Egress: &policy.Rules{{}}},
			{Key: policy.Key{Namespace: "shop", Name: "in"}, Pods: selector("db"), Ingress: &policy.Rules{{Peers: []policy.Peer{six}}}},
			{Key: policy.Key{Namespace: "shop", Name: "closed"}, Pods: selector("four"), Ingress: closed},
		},
	})
	for _, x := range []struct{ from, to, want string }{
		{"shop/web", "shop/db:80", `shop/web to shop/db, port 80/tcp: denied
  10.0.0.1 to 10.0.0.2: denied
    egress of pod shop/web: allowed by NetworkPolicy shop/out, spec.egress[0]
    ingress of pod shop/db: denied, isolated by NetworkPolicy shop/in; none of their rules allows it
  fd00::1 to fd00::2: allowed
    egress of pod shop/web: allowed by NetworkPolicy shop/out, spec.egress[0]
    ingress of pod shop/db: allowed by NetworkPolicy shop/in, spec.ingress[0]
`},
		{"fd00::1", "[fd00::2]:80/udp", `fd00::1 to fd00::2, port 80/udp: allowed
  fd00::1 to fd00::2: allowed
    egress of pod shop/web: allowed by NetworkPolicy shop/out, spec.egress[0]
    ingress of pod shop/db: allowed by NetworkPolicy shop/in, spec.ingress[0]
`},
		{"node/two", "shop/four:80", `node/two to shop/four, port 80/tcp: allowed
  172.30.0.12 to 10.0.0.4: allowed
    a node and its own pods always reach each other
`},
		{"172.30.0.11", "shop/four:80", `172.30.0.11 to shop/four, port 80/tcp: denied
  172.30.0.11 to 10.0.0.4: denied
    ingress of pod shop/four: denied, isolated by NetworkPolicy shop/closed; none of their rules allows it
`},
		{"shop/four", "shop/four:80", `shop/four to shop/four, port 80/tcp: allowed
  10.0.0.4 to 10.0.0.4: allowed
    what a pod sends to itself passes
`},
		{"192.0.2.7", "172.30.0.11:80", `192.0.2.7 to 172.30.0.11, port 80/tcp: allowed
  192.0.2.7 to 172.30.0.11: allowed
    neither end is a pod that policies are about
`},
	} {
		a, err := c.Explain(x.from, x.to)
		if err != nil {
			t.Errorf("%s to %s: %v", x.from, x.to, err)
		} else if a.String() != x.want {
			t.Errorf("%s to %s:\n%s\nwant\n%s", x.from, x.to, a, x.want)
		}
	}
	for _, x := range []struct{ from, to, want string }{
		{"shop/four", "shop/six:80", "no addresses of the same family"},
		{"shop/new", "shop/six:80", "has no address yet"},
		{"node/three", "shop/six:80", "there is no node three"},
	} {
		if _, err := c.Explain(x.from, x.to); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%s to %s: %v, want %q", x.from, x.to, err, x.want)
		}
	}
}

func selector(app string) policy.Selector {
	return policy.Selector{{Label: "app", Operator: policy.In, Values: []string{app}}}
}
