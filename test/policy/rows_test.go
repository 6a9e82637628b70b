package policy

import (
	"net/netip"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/cluster/service"
)

// sel reads pairs of label and value; a value of "" is "exists", "!" is
// "does not exist", "!x" is "not in x", "x|y" is "in x, y".
func sel(pairs ...string) *policy.Selector {
	s := policy.Selector{}
	for i := 0; i < len(pairs); i += 2 {
		r := policy.Requirement{Label: pairs[i], Operator: policy.In}
		switch v := pairs[i+1]; {
		case v == "":
			r.Operator = policy.Exists
		case v == "!":
			r.Operator = policy.DoesNotExist
		case v[0] == '!':
			r.Operator, r.Values = policy.NotIn, []string{v[1:]}
		default:
			r.Values = split(v)
		}
		s = append(s, r)
	}
	return &s
}

func split(v string) (list []string) {
	for start, i := 0, 0; i <= len(v); i++ {
		if i == len(v) || v[i] == '|' {
			list = append(list, v[start:i])
			start = i + 1
		}
	}
	return list
}

func podsLike(pairs ...string) policy.Peer  { return policy.Peer{Pods: sel(pairs...)} }
func namespace(pairs ...string) policy.Peer { return policy.Peer{Namespaces: sel(pairs...)} }
func nodesLike(pairs ...string) policy.Peer { return policy.Peer{Nodes: sel(pairs...)} }
func both(ns, pods *policy.Selector) policy.Peer {
	return policy.Peer{Namespaces: ns, Pods: pods}
}

func block(cidr string, except ...string) policy.Peer {
	p := policy.Peer{Block: netip.MustParsePrefix(cidr)}
	for _, e := range except {
		p.Except = append(p.Except, netip.MustParsePrefix(e))
	}
	return p
}

func tcp(port uint16) policy.Port { return policy.Port{Protocol: service.TCP, First: port, Last: port} }
func udp(port uint16) policy.Port { return policy.Port{Protocol: service.UDP, First: port, Last: port} }
func sctpPort(port uint16) policy.Port {
	return policy.Port{Protocol: service.SCTP, First: port, Last: port}
}
func tcpRange(first, last uint16) policy.Port {
	return policy.Port{Protocol: service.TCP, First: first, Last: last}
}
func allTCP() policy.Port           { return policy.Port{Protocol: service.TCP} }
func named(name string) policy.Port { return policy.Port{Protocol: service.TCP, Name: name} }

func from(peers ...policy.Peer) policy.Rule { return policy.Rule{Peers: peers} }

// on restricts a rule to ports.
func on(r policy.Rule, ports ...policy.Port) policy.Rule { r.Ports = ports; return r }

func rules(list ...policy.Rule) *policy.Rules { r := policy.Rules(list); return &r }

// np is a policy of a namespace.
func np(ns, name string, pods *policy.Selector, ingress, egress *policy.Rules) policy.NetworkPolicy {
	return policy.NetworkPolicy{Key: policy.Key{Namespace: ns, Name: name}, Pods: *pods, Ingress: ingress, Egress: egress}
}

func ingress(ns string, pods *policy.Selector, list ...policy.Rule) []policy.NetworkPolicy {
	return []policy.NetworkPolicy{np(ns, "in", pods, rules(list...), nil)}
}

func egress(ns string, pods *policy.Selector, list ...policy.Rule) []policy.NetworkPolicy {
	return []policy.NetworkPolicy{np(ns, "out", pods, nil, rules(list...))}
}

func crule(a policy.Action, r policy.Rule) policy.ClusterRule {
	return policy.ClusterRule{Action: a, Rule: r}
}

// unread is a rule of which the reader understood the action only.
func unread(a policy.Action) policy.ClusterRule {
	return policy.ClusterRule{Action: a, Unread: "to[0]"}
}

func cnp(tier policy.Tier, priority int, name string, ns, pods *policy.Selector, in, out []policy.ClusterRule) policy.ClusterPolicy {
	return policy.ClusterPolicy{Key: policy.Key{Name: name}, Tier: tier, Priority: priority, Namespaces: *ns, Pods: pods, Ingress: in, Egress: out}
}

func many(lists ...[]policy.NetworkPolicy) (all []policy.NetworkPolicy) {
	for i, list := range lists {
		for _, p := range list {
			p.Name += string(rune('a' + i))
			all = append(all, p)
		}
	}
	return all
}

var (
	all    = sel()
	anyone = policy.Rule{}
)

// rows. web and api are in shop on worker-1, db in bank and ops in ops on
// worker-2; shop and ops are of team sales, bank of team money.
var rows = []row{
	{"no policy", nil, nil, "web>api:80 yes, api>web:80 yes, web>db:80 yes, db>web:8080 yes, ops>web:80/udp yes, host>web:80 yes, web>host:80 yes, host>db:9090 yes"},

	{"nobody may reach web", ingress("shop", sel("app", "web")), nil,
		"api>web:80 no, db>web:80 no, ops>web:8080/udp no, host>web:80 no, web>api:80 yes, web>db:80 yes, web>host:80/udp yes, api>db:80 yes"},
	{"a default deny of a namespace", ingress("shop", all), nil,
		"web>api:80 no, api>web:80 no, db>web:80 no, db>api:80/udp no, host>api:80 no, web>db:80 yes, db>ops:80 yes, api>ops:80/udp yes"},
	{"a default deny of what leaves a namespace", egress("shop", all), nil,
		"web>api:80 no, api>web:80 no, web>db:80 no, api>ops:80/udp no, web>host:80 no, db>web:80 yes, host>api:80 yes, ops>web:80/udp yes"},
	{"a default deny of both directions", []policy.NetworkPolicy{np("shop", "x", all, rules(), rules())}, nil,
		"web>api:80 no, db>web:80 no, web>db:80 no, db>ops:80 yes, ops>db:80/udp yes, host>db:80 yes"},
	{"node and its own pods talk whatever a policy says", []policy.NetworkPolicy{np("shop", "x", all, rules(), rules())}, nil,
		"node1>web:80 yes, node1>api:8080/udp yes, web>node1:80 yes, api>node1:9090/udp yes, node2>web:80 no, web>node2:80 no, node2>db:80 yes"},

	{"a pod reaches itself, also through a Service", []policy.NetworkPolicy{np("shop", "x", all, rules(), rules())}, nil,
		"web>self:80 yes, web>self:9090/udp yes, web>api:80 no, api>self:80 no"},

	{"an empty rule allows everybody", ingress("shop", sel("app", "web"), anyone), nil,
		"api>web:80 yes, db>web:8080 yes, host>web:80/udp yes, ops>web:80 yes, node2>web:80 yes"},
	{"everybody, to one port", ingress("shop", sel("app", "web"), on(anyone, tcp(80))), nil,
		"api>web:80 yes, db>web:80 yes, host>web:80 yes, api>web:8080 no, db>web:80/udp no, host>web:8080 no"},
	{"everybody, to a range", ingress("shop", sel("app", "web"), on(anyone, tcpRange(80, 8080))), nil,
		"api>web:80 yes, db>web:8080 yes, host>web:9090 no, db>web:9090 no, api>web:80/udp no"},
	{"a range that ends below", ingress("shop", sel("app", "web"), on(anyone, tcpRange(81, 8079))), nil,
		"api>web:80 no, db>web:8080 no, host>web:9090 no, web>api:80 yes"},
	{"everybody, to every port of TCP", ingress("shop", sel("app", "web"), on(anyone, allTCP())), nil,
		"api>web:80 yes, db>web:9090 yes, api>web:80/udp no, host>web:8080/udp no"},
	{"one port of each protocol", ingress("shop", sel("app", "web"), on(anyone, tcp(80), udp(9090))), nil,
		"db>web:80 yes, db>web:9090/udp yes, db>web:9090 no, db>web:80/udp no"},
	{"SCTP", ingress("shop", sel("app", "web"), on(anyone, sctpPort(80))), nil,
		"db>web:80/sctp yes, api>web:80/sctp yes, db>web:8080/sctp no, db>web:80 no, host>web:80/sctp yes, db>api:80/sctp yes"},
	{"SCTP on the way out", egress("shop", sel("app", "web"), on(from(namespace("team", "money")), sctpPort(80))), nil,
		"web>db:80/sctp yes, web>ops:80/sctp no, web>db:8080/sctp no, api>ops:80/sctp yes"},
	{"an error about what is permitted", ingress("shop", sel("app", "web"), on(anyone, udp(7))), nil,
		"db>web:7/udp refused, api>web:7/udp refused, db>web:80/udp no, db>api:7/udp refused"},
	{"an error about what is permitted on the way out", egress("shop", sel("app", "web"), on(anyone, udp(7))), nil,
		"web>db:7/udp refused, web>host:7/udp refused, web>db:80/udp no"},
	{"a protocol without ports, by a rule without ports", ingress("shop", sel("app", "web"), from(namespace("team", "money"))), nil,
		"db>web:0/icmp yes, ops>web:0/icmp no, web>ops:0/icmp yes, db>web:80 yes"},
	{"a protocol without ports, by a rule with ports", ingress("shop", sel("app", "web"), on(anyone, tcp(80))), nil,
		"db>web:0/icmp no, db>web:80 yes, db>api:0/icmp yes"},
	{"a protocol without ports, beside ports that are denied", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil,
		[]policy.ClusterRule{crule(policy.Deny, on(from(namespace()), tcp(80)))}, []policy.ClusterRule{crule(policy.Deny, on(from(namespace()), tcp(8080)))})},
		"db>web:0/icmp yes, web>db:0/icmp yes, db>web:80 no, web>db:8080 no, web>db:80 yes, db>web:9090 yes"},
	{"two rules are one or the other", ingress("shop", sel("app", "web"), on(from(podsLike("app", "api")), tcp(80)), on(from(namespace("team", "money")), tcp(8080))), nil,
		"api>web:80 yes, db>web:8080 yes, api>web:8080 no, db>web:80 no, ops>web:80 no, ops>web:8080 no"},

	{"pods of the own namespace", ingress("shop", sel("app", "web"), from(podsLike("app", "api"))), nil,
		"api>web:80 yes, db>web:80 no, ops>web:80 no, host>web:80 no"},
	{"a podSelector does not reach another namespace", ingress("shop", sel("app", "web"), from(podsLike("app", "db"))), nil,
		"db>web:80 no, api>web:80 no, web>db:80 yes"},
	{"all pods of the own namespace", ingress("shop", sel("app", "web"), from(podsLike())), nil,
		"api>web:80 yes, api>web:9090/udp yes, db>web:80 no, ops>web:80/udp no, host>web:80 no"},
	{"a namespace by label", ingress("shop", sel("app", "web"), from(namespace("team", "sales"))), nil,
		"api>web:80 yes, ops>web:80 yes, db>web:80 no, host>web:80 no"},
	{"a namespace by name", ingress("shop", sel("app", "web"), from(namespace("kubernetes.io/metadata.name", "bank"))), nil,
		"db>web:80 yes, api>web:80 no, ops>web:80 no"},
	{"all namespaces", ingress("shop", sel("app", "web"), from(namespace())), nil,
		"db>web:80 yes, api>web:80 yes, ops>web:80/udp yes, host>web:80 no, node2>web:80 no"},
	{"namespace and pod together", ingress("shop", sel("app", "web"), from(both(sel("team", "sales"), sel("app", "ops")))), nil,
		"ops>web:80 yes, api>web:80 no, db>web:80 no"},
	{"namespace and pod apart", ingress("shop", sel("app", "web"), from(namespace("team", "money"), podsLike("app", "api"))), nil,
		"db>web:80 yes, api>web:80 yes, ops>web:80 no"},
	{"one of several values", ingress("shop", sel("app", "web"), from(both(sel(), sel("app", "db|ops")))), nil,
		"db>web:80 yes, ops>web:80 yes, api>web:80 no"},
	{"not a value", ingress("shop", sel("app", "web"), from(both(sel(), sel("app", "!db")))), nil,
		"db>web:80 no, ops>web:80 yes, api>web:80 yes"},
	{"not a value, of a label that is not there", ingress("shop", sel("app", "web"), from(both(sel(), sel("tier", "!back")))), nil,
		"ops>web:80 yes, db>web:80 no, api>web:80 no"},
	{"a label that exists", ingress("shop", sel("app", "web"), from(both(sel(), sel("tier", "")))), nil,
		"api>web:80 yes, db>web:80 yes, ops>web:80 no"},
	{"a label that does not exist", ingress("shop", sel("app", "web"), from(both(sel(), sel("tier", "!")))), nil,
		"ops>web:80 yes, api>web:80 no, db>web:80 no"},
	{"two requirements", ingress("shop", sel("app", "web"), from(both(sel(), sel("tier", "back", "app", "!db")))), nil,
		"api>web:80 yes, db>web:80 no, ops>web:80 no"},
	{"the policy's own selector with two requirements", ingress("shop", sel("tier", "front", "app", "web")), nil,
		"db>web:80 no, db>api:80 yes, web>api:80 yes"},
	{"a selector that no pod matches", ingress("shop", sel("app", "none")), nil,
		"db>web:80 yes, db>api:80 yes, host>web:80 yes"},
	{"a policy of another namespace", ingress("bank", sel("app", "web")), nil,
		"db>web:80 yes, api>web:80 yes, web>db:80 yes"},

	{"a block", ingress("shop", sel("app", "web"), from(block("192.0.2.0/24"), block("2001:db8:c::/64"))), nil,
		"host>web:80 yes, db>web:80 no, api>web:80 no"},
	{"a block without a part", ingress("shop", sel("app", "web"), from(block("192.0.0.0/16", "192.0.2.0/24"), block("2001:db8::/32", "2001:db8:c::/64"))), nil,
		"host>web:80 no, db>web:80 no, web>host:80 yes"},
	{"a part of one block is in another", ingress("shop", sel("app", "web"), from(block("192.0.0.0/16", "192.0.2.0/24"), block("192.0.2.7/32"), block("2001:db8::/32", "2001:db8:c::/64"), block("2001:db8:c::7/128"))), nil,
		"host>web:80 yes, db>web:80 no"},
	{"everything but the cluster", ingress("shop", sel("app", "web"), from(block("0.0.0.0/0", "10.0.0.0/8", "172.16.0.0/12"), block("::/0", "fd00::/8"))), nil,
		"host>web:80 yes, host>web:9090/udp yes, db>web:80 no, api>web:80 no, node2>web:80 no"},
	{"a block has pods too", ingress("shop", sel("app", "web"), from(block("10.244.2.0/24"), block("fd00:244:2::/64"))), nil,
		"db>web:80 yes, ops>web:80 yes, api>web:80 no, host>web:80 no"},
	{"a block of one pod", ingress("shop", sel("app", "web"), from(block("10.244.2.3/32"), block("fd00:244:2::3/128"))), nil,
		"ops>web:80 yes, db>web:80 no, host>web:80 no"},
	{"the block of another node", ingress("shop", sel("app", "web"), from(block("172.30.0.12/32"), block("fd00:30::12/128"))), nil,
		"node2>web:80 yes, db>web:80 no, node1>web:80 yes"},
	{"blocks and ports", ingress("shop", sel("app", "web"), on(from(block("192.0.2.0/24"), block("2001:db8:c::/64")), tcp(80)), on(from(block("10.244.2.0/24"), block("fd00:244:2::/64")), udp(80))), nil,
		"host>web:80 yes, host>web:80/udp no, db>web:80/udp yes, db>web:80 no, host>web:8080 no"},

	{"a named port", ingress("shop", all, on(anyone, named("http"))), nil,
		"db>web:8080 yes, db>api:9090 yes, db>web:9090 no, db>api:8080 no, ops>web:8080 yes, host>api:9090 yes"},
	{"a named port of the other protocol", ingress("shop", all, on(anyone, named("dns"))), nil,
		"db>web:8080 no, db>web:8080/udp no, web>db:80 yes"},
	{"a named port that no pod has", ingress("shop", all, on(anyone, named("nothing"))), nil,
		"db>web:8080 no, db>api:9090 no, web>db:80 yes"},
	{"a named port on the way out", egress("shop", sel("app", "web"), on(anyone, named("http"))), nil,
		"web>api:9090 yes, web>db:8080 yes, web>api:8080 no, web>db:9090 no, web>ops:8080 no, web>host:8080 no"},
	{"a named port of some pods on the way out", egress("shop", sel("app", "web"), on(from(namespace("team", "money")), named("http"))), nil,
		"web>db:8080 yes, web>api:9090 no, web>db:80 no"},
	{"a named port and a number on the way out", egress("shop", sel("app", "web"), on(from(namespace()), named("http"), tcp(80))), nil,
		"web>db:8080 yes, web>db:80 yes, web>api:9090 yes, web>api:80 yes, web>api:8080 no, web>ops:80 yes, web>ops:8080 no"},

	{"only to some pods", egress("shop", sel("app", "web"), from(podsLike("app", "api"))), nil,
		"web>api:80 yes, web>db:80 no, web>ops:80 no, web>host:80 no, api>db:80 yes, db>web:80 yes"},
	{"only to a namespace, on one port", egress("shop", sel("app", "web"), on(from(namespace("team", "money")), tcp(80))), nil,
		"web>db:80 yes, web>db:8080 no, web>db:80/udp no, web>api:80 no"},
	{"only to the outside", egress("shop", sel("app", "web"), from(block("0.0.0.0/0", "10.0.0.0/8"), block("::/0", "fd00::/8"))), nil,
		"web>host:80 yes, web>db:80 no, web>api:80 no, web>host:80/udp yes"},
	{"egress of the one and ingress of the other", many(egress("shop", sel("app", "web"), from(namespace("team", "money"))), ingress("bank", all, from(namespace("team", "sales")))), nil,
		"web>db:80 yes, ops>db:80 yes, api>db:80 yes, web>api:80 no, host>db:80 no, db>web:80 yes"},
	{"egress allows, ingress does not", many(egress("shop", sel("app", "web"), anyone), ingress("bank", all, from(podsLike()))), nil,
		"web>db:80 no, web>api:80 yes, api>db:80 no, db>web:80 yes"},
	{"ingress allows, egress does not", many(egress("shop", sel("app", "web")), ingress("bank", all, anyone)), nil,
		"web>db:80 no, api>db:80 yes, ops>db:80 yes"},
	{"policies of a pod add up", many(ingress("shop", sel("app", "web"), from(podsLike("app", "api"))), ingress("shop", all, on(from(namespace("team", "money")), tcp(80)))), nil,
		"api>web:80 yes, api>web:8080/udp yes, db>web:80 yes, db>web:8080 no, db>api:80 yes, web>api:80 no, ops>web:80 no"},
	{"a deny and an allow is an allow", many(ingress("shop", all), ingress("shop", all, on(from(namespace()), tcp(80)))), nil,
		"db>web:80 yes, api>web:80 yes, db>web:8080 no, host>web:80 no"},
	{"ports add up", many(ingress("shop", all, on(anyone, tcp(80))), ingress("shop", all, on(anyone, tcp(8080))), ingress("shop", all, on(anyone, udp(80)))), nil,
		"db>web:80 yes, db>web:8080 yes, db>web:80/udp yes, db>web:9090 no, db>web:8080/udp no"},
	{"overlapping ranges", many(ingress("shop", all, on(anyone, tcpRange(1, 8079))), ingress("shop", all, on(anyone, tcpRange(80, 8080)))), nil,
		"db>web:80 yes, db>web:8080 yes, db>web:9090 no"},
	{"what everybody may, beside what some may", many(ingress("shop", sel("app", "web"), from(namespace("team", "money"))), ingress("shop", sel("app", "api"), on(anyone, tcp(80))), egress("shop", sel("app", "web"), from(namespace("team", "money"))), egress("shop", sel("app", "api"), on(anyone, tcp(80)))), nil,
		"db>api:80 yes, api>db:80 yes, ops>api:80 yes, api>ops:80 yes, db>api:8080 no, api>db:8080 no, db>web:8080 yes, web>db:8080 yes, ops>web:80 no"},
	{"several isolated pods on one node", many(ingress("shop", sel("app", "web"), from(podsLike())), ingress("shop", sel("app", "api"), from(namespace("team", "money"))), egress("shop", sel("app", "api"), from(podsLike()))), nil,
		"api>web:80 yes, db>api:80 yes, web>api:80 no, db>web:80 no, api>db:80 no, web>db:80 yes"},

	{"an administrator denies", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace("team", "money")))}, nil)},
		"db>web:80 no, db>ops:80 no, db>api:80/udp no, web>db:80 yes, api>web:80 yes, host>web:80 yes"},
	{"an administrator denies what a policy allows", ingress("shop", all, anyone), []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace("team", "money")))}, nil)},
		"db>web:80 no, ops>web:80 yes, api>web:80 yes, host>web:80 yes"},
	{"an administrator allows what a policy denies", ingress("shop", all), []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Accept, on(from(namespace("team", "money")), tcp(80)))}, nil)},
		"db>web:80 yes, db>web:8080 no, ops>web:80 no, web>db:80 yes"},
	{"an administrator passes", ingress("shop", sel("app", "web")), []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Pass, from(namespace("team", "money"))), crule(policy.Deny, from(namespace()))}, nil)},
		"db>web:80 no, db>api:80 yes, ops>api:80 no, web>api:80 no, host>api:80 yes, host>web:80 no"},
	{"the lower number first", nil, []policy.ClusterPolicy{
		cnp(policy.Admin, 2, "deny", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace()))}, nil),
		cnp(policy.Admin, 1, "accept", sel(), nil, []policy.ClusterRule{crule(policy.Accept, on(from(namespace("team", "money")), tcp(80)))}, nil)},
		"db>web:80 yes, db>web:8080 no, ops>web:80 no, api>web:80 no, host>web:80 yes"},
	{"the first rule first", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), sel("app", "web"), []policy.ClusterRule{
		crule(policy.Accept, on(from(namespace()), tcp(80))), crule(policy.Deny, on(from(namespace()), tcpRange(1, 9000)))}, nil)},
		"db>web:80 yes, db>web:8080 no, db>web:9090 yes, db>api:8080 yes, db>web:8080/udp yes"},
	{"a subject of some pods", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), sel("app", "web|ops"), []policy.ClusterRule{crule(policy.Deny, from(namespace()))}, nil)},
		"db>web:80 no, web>ops:80 no, db>api:80 yes, web>db:80 yes"},
	{"an administrator's egress to networks", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, nil, []policy.ClusterRule{
		crule(policy.Accept, on(from(block("192.0.2.7/32"), block("2001:db8:c::7/128")), tcp(80))), crule(policy.Deny, from(block("0.0.0.0/0"), block("::/0")))})},
		"web>host:80 yes, web>host:8080 no, web>db:80 no, web>api:80 no, db>web:80 yes"},
	{"an administrator's egress to nodes", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, nil, []policy.ClusterRule{crule(policy.Deny, from(nodesLike("number", "2")))})},
		"web>node2:80 no, web>db:80 yes, web>node1:80 yes, db>node2:80 yes, ops>node2:80 yes"},
	{"a baseline", nil, []policy.ClusterPolicy{cnp(policy.Baseline, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace("team", "money")))}, nil)},
		"db>web:80 no, ops>web:80 yes, web>db:80 yes"},
	{"a policy replaces the baseline", ingress("shop", sel("app", "web"), from(namespace("team", "money"))), []policy.ClusterPolicy{cnp(policy.Baseline, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace()))}, nil)},
		"db>web:80 yes, ops>web:80 no, db>api:80 no, web>db:80 no, host>api:80 yes"},
	{"both tiers and a policy", ingress("shop", sel("app", "web"), on(anyone, tcp(80))), []policy.ClusterPolicy{
		cnp(policy.Admin, 1, "a", sel(), nil, []policy.ClusterRule{crule(policy.Pass, on(from(namespace("team", "money")), tcp(80))), crule(policy.Deny, from(namespace("team", "money")))}, nil),
		cnp(policy.Baseline, 1, "b", sel(), nil, []policy.ClusterRule{crule(policy.Deny, on(anyone, udp(80)))}, nil)},
		"db>web:80 yes, db>web:8080 no, ops>web:80 yes, ops>web:8080 no, db>api:80 yes, ops>api:80/udp no, ops>api:8080/udp yes, db>api:8080 no"},
	{"a rule that is not understood and denies, denies everybody", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{unread(policy.Deny)}, nil)},
		"db>web:80 no, host>web:80 no, api>web:80/udp no, web>db:80 yes"},
	{"a rule that is not understood and accepts, accepts nobody", ingress("shop", all), []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{unread(policy.Accept)}, nil)},
		"db>web:80 no, host>web:80 no, web>db:80 yes"},
	{"a rule that is not understood and passes, passes nobody on", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{unread(policy.Pass), crule(policy.Accept, anyone)}, nil)},
		"db>web:80 no, host>ops:80 no, web>db:80 yes"},
	{"an action that is not known denies everybody", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, nil, []policy.ClusterRule{crule("Log", from(namespace("team", "money")))})},
		"web>db:80 no, web>host:80 no, ops>db:80/udp no, db>web:80 yes"},
	{"rules before one that is not understood decide", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel("team", "sales"), nil, []policy.ClusterRule{crule(policy.Accept, on(from(namespace("team", "money")), tcp(80))), unread(policy.Deny)}, nil)},
		"db>web:80 yes, db>web:8080 no, api>web:80 no, web>db:80 yes"},
	{"a policy whose subject is not understood is none", nil, []policy.ClusterPolicy{func() policy.ClusterPolicy {
		p := cnp(policy.Admin, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Deny, anyone)}, nil)
		p.Unread = "subject"
		return p
	}()}, "db>web:80 yes, web>db:80 yes"},
	{"of two with one priority the first by name", nil, []policy.ClusterPolicy{
		cnp(policy.Admin, 5, "b", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace("team", "money")))}, nil),
		cnp(policy.Admin, 5, "a", sel(), nil, []policy.ClusterRule{crule(policy.Accept, on(from(namespace("team", "money")), tcp(80)))}, nil)},
		"db>web:80 yes, db>web:8080 no, ops>web:80 yes"},
	{"both ends of an administrator", nil, []policy.ClusterPolicy{
		cnp(policy.Admin, 1, "out", sel("team", "sales"), nil, nil, []policy.ClusterRule{crule(policy.Accept, on(from(namespace("team", "money")), tcpRange(80, 8080))), crule(policy.Deny, from(namespace()))}),
		cnp(policy.Admin, 1, "in", sel("team", "money"), nil, []policy.ClusterRule{crule(policy.Deny, on(from(namespace("team", "sales")), tcp(8080)))}, nil)},
		"web>db:80 yes, web>db:8080 no, web>db:9090 no, api>ops:80 no, ops>db:80 yes, db>web:80 yes, web>host:80 yes"},
	{"an administrator's named port", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), nil, nil, []policy.ClusterRule{crule(policy.Deny, on(from(namespace()), policy.Port{Name: "http"}))})},
		"web>db:8080 no, web>api:9090 no, web>api:8080 yes, web>db:80 yes, web>db:8080/udp yes, db>ops:8080 yes"},
	{"an administrator's rules about each protocol", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), sel("app", "web"), []policy.ClusterRule{
		crule(policy.Accept, on(from(namespace("team", "money")), sctpPort(80), udp(80))), crule(policy.Pass, on(from(namespace("team", "money")), tcp(80))), crule(policy.Deny, from(namespace()))}, nil)},
		"db>web:80/sctp yes, db>web:8080/sctp no, ops>web:80/sctp no, host>web:80/sctp yes, db>web:80/udp yes, db>web:9090/udp no, db>web:80 yes, db>web:8080 no"},
	{"a baseline's rules about each protocol, on the way out", nil, []policy.ClusterPolicy{cnp(policy.Baseline, 0, "x", sel(), sel("app", "web"), nil, []policy.ClusterRule{
		crule(policy.Accept, on(from(namespace("team", "money")), sctpPort(80), udp(80), tcp(80))), crule(policy.Deny, from(namespace()))})},
		"web>db:80/sctp yes, web>db:8080/sctp no, web>ops:80/sctp no, web>host:80/sctp yes, web>db:80/udp yes, web>db:9090/udp no, web>db:80 yes, web>db:8080 no"},
	{"pods of some namespaces", nil, []policy.ClusterPolicy{cnp(policy.Admin, 1, "x", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(both(sel("team", "sales"), sel("app", "api|db"))))}, nil)},
		"api>web:80 no, api>db:80/udp no, db>web:80 yes, web>api:80 yes, ops>web:80 yes"},
	{"a baseline accepts before it denies", nil, []policy.ClusterPolicy{
		cnp(policy.Baseline, 1, "a", sel("team", "sales"), nil, []policy.ClusterRule{crule(policy.Accept, from(namespace("team", "sales")))}, nil),
		cnp(policy.Baseline, 2, "b", sel(), nil, []policy.ClusterRule{crule(policy.Deny, from(namespace()))}, nil)},
		"api>web:80 yes, ops>web:80 yes, db>web:80 no, web>db:80 no, host>web:80 yes"},
	{"pass in the baseline is what happens without one", nil, []policy.ClusterPolicy{
		cnp(policy.Baseline, 1, "a", sel(), nil, []policy.ClusterRule{crule(policy.Pass, from(namespace("team", "money"))), crule(policy.Deny, anyone)}, nil)},
		"db>web:80 yes, ops>web:80 no, host>web:80 no, db>ops:80/udp yes"},

	{"a block with bits of a host", ingress("shop", sel("app", "web"), from(block("10.244.2.77/24"), block("fd00:244:2::77/64"))), nil,
		"db>web:80 yes, ops>web:80 yes, api>web:80 no, host>web:80 no"},
	{"IPv4 in the notation of IPv6", ingress("shop", sel("app", "web"), from(block("::ffff:10.244.0.0/112", "::ffff:10.244.2.2/128"), block("fd00:244::/32", "fd00:244:2::2/128"))), nil,
		"ops>web:80 yes, api>web:80 yes, db>web:80 no, host>web:80 no"},
	{"exceptions within exceptions, and outside", ingress("shop", sel("app", "web"), from(block("0.0.0.0/0", "10.0.0.0/8", "10.244.2.0/24", "10.244.2.2/32", "fd00::/8"), block("::/0", "fd00::/8", "fd00:244::/32", "192.0.2.0/24"))), nil,
		"host>web:80 yes, db>web:80 no, ops>web:80 no"},
	{"an exception that leaves nothing", ingress("shop", sel("app", "web"), from(block("10.244.2.0/24", "10.0.0.0/8"), block("fd00:244:2::/64", "::/0"))), nil,
		"db>web:80 no, ops>web:80 no, web>db:80 yes"},
	{"overlapping blocks with ports of their own", ingress("shop", sel("app", "web"), on(from(block("10.0.0.0/8"), block("fd00::/8")), tcp(80)), on(from(block("10.244.2.2/31"), block("fd00:244:2::2/127")), tcp(8080)), on(from(block("10.244.2.2/32"), block("fd00:244:2::2/128")), udp(80))), nil,
		"api>web:80 yes, api>web:8080 no, ops>web:80 yes, ops>web:8080 yes, ops>web:80/udp no, db>web:8080 yes, db>web:80/udp yes, host>web:80 no"},
	{"a requirement without the values that it needs", ingress("shop", sel("app", "web"), from(policy.Peer{Namespaces: &policy.Selector{{Label: "team", Operator: policy.NotIn}}}), from(podsLike("app", "api"))), nil,
		"api>web:80 yes, db>web:80 no, ops>web:80 no"},
}
