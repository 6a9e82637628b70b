// Package corpus is what goes wrong in clusters: one text file a fault, with
// commands that break something, commands that mend it, a harmless twin, and
// the hop of the path at which the fault is. Inputs are the files and a running
// cluster; outputs are faults that happen, traffic that is measured to fail and
// to work, and what is left behind. It refuses to know how faults are found.
//
// A file begins with a comment and lines of the form "key: value":
//
//	path: who talks to whom (see paths), then options (see options)
//	hop:  the class of the hop that is broken
//	both: two other faults of which this is made; path and scripts are theirs
//	open: why nothing names it yet
//
// Then follow sections, each below a line "-- name --": the scripts break,
// mend, twin and "mend twin" (by default mend), and files that kubectl gets.
// A line of a script is a place (see places) and a shell command; the line
// "fails" waits until the traffic does. Where a fault stays only while a daemon
// hangs, the daemon is well beside the twin, and may undo it.
package corpus

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
)

//go:embed *.txt late/*.txt *.yaml prelude.sh
var files embed.FS

// Fault is one of the corpus.
type Fault struct {
	Name  string
	About string
	// Hop is the class of the broken hop that comes first on the path.
	Hop string
	// Late faults were written when what looks for them was finished.
	Late bool
	// Double faults are made of two.
	Double bool
	// Open is why nothing that looks for faults can be expected to name this
	// one, or empty.
	Open string
	Path Path

	Break, Mend, Twin, MendTwin []Step

	files map[string]string
	both  []string
}

// Path is the traffic that a fault breaks.
type Path struct {
	Kind string
	// UDP in place of TCP; Large packets as large as a pod's link takes.
	UDP, Large bool
	// Family is 4 or 6, or 0 for either.
	Family int
	// OtherNode keeps the two ends apart, OneNode together, Workers off the
	// control plane's node.
	OtherNode, OneNode, Workers bool
}

// Kinds of paths.
const (
	PodToPod       = "pod to pod"
	PodToService   = "pod to service" // by its cluster address
	PodToSlice     = "pod to slice"   // a Service whose EndpointSlices are kept by hand
	PodToName      = "pod to name"    // a Service, by DNS
	PodToAlias     = "pod to alias"   // a Service of type ExternalName
	OutsideToPort  = "outside to node port"
	OutsideToURL   = "outside to URL" // through Ingress, by HTTP
	OutsideToHTTPS = "outside to HTTPS"
	PodToNewPod    = "pod to new pod" // one that is yet to start

	PodToHost         = "pod to pod of the node's network"
	PodToHeadless     = "pod to headless name"
	NodeToService     = "node to service"
	OutsideToHostPort = "outside to host port"
	OutsideToBalancer = "outside to load balancer"
)

// Paths are all kinds.
var Paths = []string{
	PodToPod, PodToService, PodToSlice, PodToName, PodToAlias, OutsideToPort, OutsideToURL, OutsideToHTTPS, PodToNewPod,
	PodToHost, PodToHeadless, NodeToService, OutsideToHostPort, OutsideToBalancer,
}

var options = map[string]func(*Path){
	"udp":        func(p *Path) { p.UDP = true },
	"large":      func(p *Path) { p.UDP, p.Large = true, true },
	"ipv4":       func(p *Path) { p.Family = 4 },
	"ipv6":       func(p *Path) { p.Family = 6 },
	"other node": func(p *Path) { p.OtherNode = true },
	"workers":    func(p *Path) { p.Workers = true },
}

// Hops are the classes of hops that faults are at, in the order of docs/trace.md.
var Hops = []string{
	"dns", "entry", "firewall", "ingress-class", "ingress-route", "ingress-tls", "ingress-program", "service", "endpoints", "service-program", "conntrack",
	"policy-egress", "route", "sysctl", "overlay", "underlay", "mtu", "decapsulation", "guard", "policy-ingress", "pod-link", "pod-address", "pod-route",
	"socket", "return", "node", "address-range", "daemon",
}

// Healthy is a path on which nothing breaks.
func Healthy(p Path) Fault { return Fault{Name: "healthy: " + p.Kind, Path: p} }

// Step is a line of a script.
type Step struct{ Place, Command string }

// Places where commands run: on the node of the client, or that is asked from
// outside, and on the server's; in the network namespaces of the two pods; in
// the server's container; in the network between the nodes; beside the cluster.
var places = []string{"near", "far", "client", "server", "container", "lan", "kubectl"}

// untilFails is the place of the line that is no command.
const untilFails = "fails"

// Read returns all faults in the order of their names.
func Read() ([]Fault, error) {
	var all []Fault
	byName := map[string]Fault{}
	for _, dir := range []string{".", "late"} {
		names, err := fs.Glob(files, path.Join(dir, "*.txt"))
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			text, err := files.ReadFile(name)
			if err != nil {
				return nil, err
			}
			f, err := parse(string(text))
			if err != nil {
				return nil, fmt.Errorf("read fault %s: %w", name, err)
			}
			f.Name, f.Late = strings.TrimSuffix(path.Base(name), ".txt"), dir == "late"
			if _, taken := byName[f.Name]; taken {
				return nil, fmt.Errorf("read fault %s: there are two of that name", f.Name)
			}
			byName[f.Name] = f
			all = append(all, f)
		}
	}
	for i := range all {
		if err := all[i].join(byName); err != nil {
			return nil, fmt.Errorf("read fault %s: %w", all[i].Name, err)
		}
	}
	slices.SortFunc(all, func(a, b Fault) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

func parse(text string) (Fault, error) {
	f := Fault{files: map[string]string{}}
	head, rest, _ := strings.Cut(text, "\n-- ")
	for line := range strings.Lines(head) {
		line = strings.TrimSpace(line)
		key, value, _ := strings.Cut(line, ": ")
		var err error
		switch key {
		case "path":
			f.Path, err = parsePath(value)
		case "hop":
			f.Hop = value
		case "both":
			f.both = strings.Fields(value)
		case "open":
			f.Open = value
		default:
			f.About = strings.TrimSpace(f.About + " " + line)
		}
		if err != nil {
			return f, err
		}
	}
	if !slices.Contains(Hops, f.Hop) {
		return f, fmt.Errorf("hop %q: want one of %s", f.Hop, strings.Join(Hops, ", "))
	}
	for rest != "" {
		var section string
		section, rest, _ = strings.Cut(rest, "\n-- ")
		name, body, _ := strings.Cut(section, " --\n")
		if err := f.section(name, strings.TrimSuffix(body, "\n")+"\n"); err != nil {
			return f, fmt.Errorf("section %s: %w", name, err)
		}
	}
	if f.MendTwin == nil {
		f.MendTwin = f.Mend
	}
	if f.both == nil && (len(f.Break) == 0 || len(f.Mend) == 0 || len(f.Twin) == 0) {
		return f, fmt.Errorf("want sections break, mend and twin")
	}
	return f, nil
}

func parsePath(text string) (p Path, err error) {
	words := strings.Split(text, ", ")
	if p.Kind = words[0]; !slices.Contains(Paths, p.Kind) {
		return p, fmt.Errorf("path %q: want one of %s", p.Kind, strings.Join(Paths, ", "))
	}
	for _, word := range words[1:] {
		set, found := options[word]
		if !found {
			return p, fmt.Errorf("path %q: there is no option %q", text, word)
		}
		set(&p)
	}
	return p, nil
}

func (f *Fault) section(name, body string) (err error) {
	switch name {
	case "break":
		f.Break, err = parseScript(body)
	case "mend":
		f.Mend, err = parseScript(body)
	case "twin":
		f.Twin, err = parseScript(body)
	case "mend twin":
		f.MendTwin, err = parseScript(body)
	default:
		f.files[name] = body
	}
	return err
}

func parseScript(text string) (steps []Step, err error) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		place, command, _ := strings.Cut(line, " ")
		switch {
		case place == untilFails:
		case !slices.Contains(places, place):
			return nil, fmt.Errorf("line %q: want it to begin with one of %s, or to be %s", line, strings.Join(places, ", "), untilFails)
		case place == "kubectl":
			command = line // it is the command, too
		}
		steps = append(steps, Step{place, command})
	}
	return steps, nil
}

// join makes a double fault out of two. What is done last is undone first.
func (f *Fault) join(all map[string]Fault) error {
	if f.both == nil {
		return nil
	}
	f.Double = true
	for i, name := range f.both {
		one, found := all[name]
		if !found || one.both != nil {
			return fmt.Errorf("both: there is no single fault %s", name)
		}
		if i == 0 {
			f.Path = one.Path
		}
		f.Path.OtherNode = f.Path.OtherNode || one.Path.OtherNode
		f.Path.Workers = f.Path.Workers || one.Path.Workers
		f.Path.Family = max(f.Path.Family, one.Path.Family)
		f.Break, f.Twin = append(f.Break, one.Break...), append(f.Twin, one.Twin...)
		f.Mend, f.MendTwin = slices.Concat(one.Mend, f.Mend), slices.Concat(one.MendTwin, f.MendTwin)
		for file, text := range one.files {
			f.files[file] = text
		}
	}
	return nil
}
