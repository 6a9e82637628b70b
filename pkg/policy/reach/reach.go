// Package reach says who reaches whom in a whole cluster, and whose rules
// decide. Inputs are all objects and two ends as people write them; outputs
// are the decisions of the tables that the daemons of both ends' nodes would
// compile. It refuses to evaluate a policy itself.
package reach

import (
	"fmt"
	"net/netip"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	compiler "poplin.dev/poplin/pkg/policy"
	"poplin.dev/poplin/pkg/policy/verdict"
	"poplin.dev/poplin/pkg/program/permit"
)

// Cluster is all objects, and the tables of nodes that were asked.
type Cluster struct {
	objects policy.Objects
	tables  map[string]*compiler.Table
	// Findings are what users should mend.
	Findings []compiler.Finding
}

// New takes over the objects.
func New(o policy.Objects) *Cluster {
	c := &Cluster{objects: o, tables: map[string]*compiler.Table{}}
	c.tables[""], c.Findings = c.compile("")
	return c
}

// compile tells a new table everything, as the daemon of a node does.
func (c *Cluster) compile(node string) (*compiler.Table, []compiler.Finding) {
	var findings []compiler.Finding
	t := compiler.NewTable(node, permit.New())
	for _, n := range c.objects.Namespaces {
		t.SetNamespace(n)
	}
	for _, n := range c.objects.Nodes {
		t.SetNode(n)
	}
	for _, p := range c.objects.Pods {
		t.SetPod(p)
	}
	for _, p := range c.objects.Policies {
		findings = append(findings, t.SetPolicy(p)...)
	}
	for _, p := range c.objects.Cluster {
		findings = append(findings, t.SetClusterPolicy(p)...)
	}
	return t, findings
}

func (c *Cluster) table(node string) *compiler.Table {
	if c.tables[node] == nil {
		c.tables[node], _ = c.compile(node)
	}
	return c.tables[node]
}

// Answer is what becomes of a connection.
type Answer struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Protocol string `json:"protocol"`
	Port     uint16 `json:"port"`
	// Allowed says that it passes in every family that both ends have.
	Allowed bool   `json:"allowed"`
	Flows   []Flow `json:"flows"`
}

// Flow is the connection in one family.
type Flow struct {
	Source      netip.Addr `json:"source"`
	Destination netip.Addr `json:"destination"`
	Allowed     bool       `json:"allowed"`
	// Note is why no policy is asked.
	Note      string             `json:"note,omitempty"`
	Decisions []verdict.Decision `json:"decisions,omitempty"`
}

// Explain follows a connection from one end to another: "shop/web" to
// "bank/db:5432", "192.0.2.7" to "bank/db:dns/udp".
func (c *Cluster) Explain(from, to string) (Answer, error) {
	src, err := c.end(from)
	if err != nil {
		return Answer{}, err
	}
	name, port, err := cutPort(to)
	if err != nil {
		return Answer{}, err
	}
	dst, err := c.end(name)
	if err != nil {
		return Answer{}, err
	}
	if err := port.resolve(dst.pod); err != nil {
		return Answer{}, err
	}
	a := Answer{From: src.name, To: dst.name, Protocol: port.proto.String(), Port: port.number, Allowed: true}
	for _, s := range src.addrs {
		i := slices.IndexFunc(dst.addrs, func(d netip.Addr) bool { return d.BitLen() == s.BitLen() })
		if i < 0 {
			continue
		}
		f := c.flow(src, dst, compiler.Packet{Src: s, Dst: netip.AddrPortFrom(dst.addrs[i], port.number), Proto: port.proto})
		a.Flows, a.Allowed = append(a.Flows, f), a.Allowed && f.Allowed
	}
	if len(a.Flows) == 0 {
		return a, fmt.Errorf("%s and %s have no addresses of the same family", src.name, dst.name)
	}
	return a, nil
}

func (c *Cluster) flow(src, dst end, p compiler.Packet) Flow {
	f := Flow{Source: p.Src, Destination: p.Dst.Addr(), Allowed: true}
	switch {
	case f.Source == f.Destination:
		f.Note = "what a pod sends to itself passes"
		return f
	case src.isNode(dst) || dst.isNode(src):
		f.Note = "a node and its own pods always reach each other"
		return f
	}
	for _, e := range []end{src, dst} {
		if e.pod == nil {
			continue
		}
		for _, d := range c.table(e.pod.Node).Explain(p) {
			if d.Pod == e.pod.Key && (d.Direction == verdict.Egress) == (e.pod == src.pod) {
				f.Decisions = append(f.Decisions, d)
				f.Allowed = f.Allowed && d.Allowed
			}
		}
	}
	if src.pod == nil && dst.pod == nil {
		f.Note = "neither end is a pod that policies are about"
	}
	return f
}
