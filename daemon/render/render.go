// Package render writes what a node holds as text, layer by layer: the overlay,
// Services and policies. Inputs are a node's facts and what it should hold; output
// is each as lines of one form, and the lines in which they differ. It refuses to
// compare what is not known of one of them.
package render

import (
	"fmt"
	"io"
	"net/netip"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/pkg/trace/way"
)

// Layer is one part of a node's program.
type Layer struct {
	Name    string   `json:"layer"`
	Desired []string `json:"desired"`
	Actual  []string `json:"actual"`
	// Missing are desired lines that the node lacks, Surplus the reverse.
	Missing []string `json:"missing"`
	Surplus []string `json:"surplus"`
	// Unknown is why one of them is not known, and nothing is compared.
	Unknown string `json:"unknown,omitempty"`
}

// Layers compares.
func Layers(f facts.Node, d way.Desired) []Layer {
	list := []Layer{{Name: "overlay"}, {Name: "services"}, {Name: "policy"}}
	if f.Network != nil {
		want, have := comparable(d.Net, f.Network), actual(f.Network)
		list[0].Desired, list[0].Actual = lines(want.String()), lines(have.String())
	} else {
		list[0].Unknown = f.Missing[string(facts.OfNetwork)]
	}
	if f.Rules != nil {
		list[1].Desired, list[1].Actual = lines(d.Services.String()), lines(f.Rules.Services.String())
		list[2].Desired, list[2].Actual = verdicts(d.Policy), verdicts(f.Rules.Policy.Program)
	}
	for i, part := range []struct{ desired, actual string }{{"net", string(facts.OfNetwork)}, {"services", "rules.services"}, {"policy", "rules.policy"}} {
		l := &list[i]
		for _, why := range []string{d.Lacks[part.desired], f.Missing[part.actual]} {
			if why != "" {
				l.Unknown = why
			}
		}
		if l.Unknown == "" {
			l.Missing, l.Surplus = without(l.Desired, l.Actual), without(l.Actual, l.Desired)
		}
	}
	return list
}

func lines(text string) []string {
	return strings.FieldsFunc(text, func(r rune) bool { return r == '\n' })
}

func without(list, other []string) (rest []string) {
	there := map[string]bool{}
	for _, l := range other {
		there[l] = true
	}
	return slices.DeleteFunc(slices.Clone(list), func(l string) bool { return there[l] })
}

// comparable is what is desired, as far as the facts say whether it is so:
// sysctls and who fills in checksums are the daemon's to watch.
func comparable(want program.Net, n *facts.Network) program.Net {
	want.Sysctls, want.Link.SoftwareChecksum = nil, false
	if l, held := n.Holder(want.Link.Local); held {
		want.Link.Parent = l.Name
	}
	return want
}

// defaultMetric is what the kernel gives an IPv6 route without one.
const defaultMetric = 1024

// actual is what a node holds of the overlay, in a program's form.
func actual(n *facts.Network) (have program.Net) {
	link, found := n.Link(overlay.Link)
	if found && link.VXLAN != nil {
		parent, _ := n.Holder(link.VXLAN.Local)
		have.Link = program.VXLAN{
			Name: link.Name, VNI: link.VXLAN.VNI, Port: link.VXLAN.Port, Local: link.VXLAN.Local,
			Parent: parent.Name, MTU: link.MTU, MAC: mac(link.MAC),
		}
	}
	for _, a := range link.Addresses {
		if !a.Addr().IsLinkLocalUnicast() {
			have.Addrs = append(have.Addrs, a)
		}
	}
	for _, x := range n.Neighs {
		if x.Dev == overlay.Link && x.State == "permanent" {
			have.Neighs = append(have.Neighs, program.Neigh{Addr: x.Addr, MAC: mac(x.MAC)})
		}
	}
	for _, x := range n.FDB {
		have.FDB = append(have.FDB, program.FDB{MAC: mac(x.MAC), Dst: x.Dst})
	}
	for _, r := range n.Routes {
		// Pods' own routes are the CNI plugin's.
		if r.Protocol != program.Protocol || r.Kind == "unicast" && r.Dev != overlay.Link && !r.Via.IsValid() {
			continue
		}
		route := program.Route{Dst: r.Dst, Via: r.Via, Dev: r.Dev, Metric: r.Metric, MTU: r.MTU}
		if r.Kind == "unreachable" {
			route.Dev, route.Via = "", netip.Addr{}
		}
		if r.Dst.Addr().Is6() && r.Metric == defaultMetric {
			route.Metric = 0
		}
		have.Routes = append(have.Routes, route)
	}
	return have
}

// mac is the zero one for what is none.
func mac(text string) cluster.MAC {
	m, _ := cluster.ParseMAC(text)
	return m
}

// What of a layer is written.
const (
	Desired = "desired"
	Actual  = "actual"
	Diff    = "diff"
)

// Text writes layers for people.
func Text(w io.Writer, list []Layer, what string) error {
	var b strings.Builder
	write := func(prefix string, lines []string) {
		for _, line := range lines {
			fmt.Fprintln(&b, prefix+line)
		}
	}
	for _, l := range list {
		switch {
		case what == Desired:
			fmt.Fprintf(&b, "# %s\n", l.Name)
			write("", l.Desired)
		case what == Actual:
			fmt.Fprintf(&b, "# %s\n", l.Name)
			write("", l.Actual)
		case l.Unknown != "":
			fmt.Fprintf(&b, "# %s: not compared: %s\n", l.Name, l.Unknown)
		default:
			fmt.Fprintf(&b, "# %s: %d lines, %d missing, %d too many\n", l.Name, len(l.Desired), len(l.Missing), len(l.Surplus))
			write("- ", l.Surplus)
			write("+ ", l.Missing)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// Same reports that nothing differs.
func Same(list []Layer) bool {
	return !slices.ContainsFunc(list, func(l Layer) bool { return len(l.Missing)+len(l.Surplus) > 0 })
}
