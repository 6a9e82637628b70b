// Package flows says who talks to whom. Inputs are what nodes track of
// connections, and the names of the cluster's addresses; output is one row for
// each pair of ends and port. A connection that two nodes track is counted once.
// It refuses to name what it has no name for: then the address stands there.
package flows

import (
	"cmp"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
)

// Names are those of the cluster's addresses.
type Names map[netip.Addr]string

// AddPods adds pods that have addresses of their own.
func (n Names) AddPods(list []object.Pod) {
	for _, p := range list {
		if !p.Spec.HostNetwork && !p.Ended() {
			n.add("pod "+p.String(), p.Addresses())
		}
	}
}

// AddServices adds Services by the addresses that clients use.
func (n Names) AddServices(list []object.Service) {
	for _, s := range list {
		n.add("service "+s.String(), slices.Concat(s.ClusterIPs(), s.Outer()))
	}
}

// AddNodes adds nodes.
func (n Names) AddNodes(list []object.Node) {
	for _, o := range list {
		n.add("node "+o.Name, o.Addresses())
		for _, p := range o.Spec.PodCIDRs { // of its overlay device
			n.add("node "+o.Name, []netip.Addr{p.Masked().Addr()})
		}
	}
}

func (n Names) add(name string, addrs []netip.Addr) {
	for _, a := range addrs {
		n[a] = name
	}
}

func (n Names) of(a netip.Addr) string { return cmp.Or(n[a], a.String()) }

// Row is connections of one kind.
type Row struct {
	From string `json:"from"`
	// Via is the Service, or the node, whose address was asked for; empty
	// where it was the other end's own.
	Via  string `json:"via,omitempty"`
	To   string `json:"to"`
	Port string `json:"port"`
	// Count of them, and those that nobody has answered.
	Count      int `json:"count"`
	Unanswered int `json:"unanswered,omitempty"`
}

// connection is one, as both ends' nodes see it.
type connection struct {
	proto    service.Protocol
	src, end netip.AddrPort
}

// Rows puts the nodes' lists together, the most frequent first. A row has match
// in one of its names; an empty one is in all.
func Rows(nodes [][]facts.Known, names Names, match string) []Row {
	seen := map[connection]facts.Known{}
	for _, list := range nodes {
		for _, k := range list {
			if k.Src.Addr().IsLoopback() {
				continue
			}
			c := connection{k.Proto, k.Src, k.To}
			had, again := seen[c]
			if again {
				// Where it was translated, one knows more.
				if had.Dst != had.To {
					k.Dst = had.Dst
				}
				k.Answered = k.Answered || had.Answered
			}
			seen[c] = k
		}
	}
	rows := map[Row]*Row{}
	for _, k := range seen {
		kind := Row{From: names.of(k.Src.Addr()), To: names.of(k.To.Addr()), Port: fmt.Sprintf("%s/%d", k.Proto, k.To.Port())}
		if k.Dst != k.To {
			kind.Via = fmt.Sprintf("%s:%d", names.of(k.Dst.Addr()), k.Dst.Port())
		}
		if !strings.Contains(kind.From+"\n"+kind.Via+"\n"+kind.To, match) {
			continue
		}
		r := rows[kind]
		if r == nil {
			r = &kind
			rows[kind] = r
		}
		r.Count++
		if !k.Answered {
			r.Unanswered++
		}
	}
	list := []Row{}
	for _, r := range rows {
		list = append(list, *r)
	}
	slices.SortFunc(list, func(a, b Row) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.From, b.From), cmp.Compare(a.Via, b.Via), cmp.Compare(a.To, b.To), cmp.Compare(a.Port, b.Port))
	})
	return list
}

// Text is the rows for people.
func Text(w io.Writer, list []Row) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "COUNT\tUNANSWERED\tFROM\tVIA\tTO\tPORT")
	for _, r := range list {
		fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\t%s\n", r.Count, r.Unanswered, r.From, cmp.Or(r.Via, "-"), r.To, r.Port)
	}
	return t.Flush()
}
