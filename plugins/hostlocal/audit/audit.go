// Package audit says who has which address of a node, and what is wrong. Inputs
// are what the IPAM's files, the kernel and the container runtime say; output is
// a report. It refuses to guess: what cannot be told is a remark, no problem.
package audit

import (
	"cmp"
	"fmt"
	"maps"
	"math/big"
	"net/netip"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/plugins/hostlocal/allocator"
	"poplin.dev/poplin/plugins/hostlocal/store"
)

// Facts are what is known of one network of one node.
type Facts struct {
	Network string
	Sets    []allocator.Set
	Files   store.Survey
	Links   []Link
	// Attachments are the runtime's; unless Sure, there is no telling what it
	// does not know.
	Attachments []Attachment
	Sure        bool
	// LinkOf names the link of an attachment.
	LinkOf func(containerID, ifName string) string
}

// Link is the host's end of an attachment, with the addresses that are routed
// to it.
type Link struct {
	Name, Alias string
	Addrs       []netip.Addr
}

// Attachment is one of the runtime's.
type Attachment struct{ ContainerID, IfName, Pod string }

// States of an address.
const (
	Used     = "used"     // by a container whose link is there
	Reserved = "reserved" // for a container without a link
	Foreign  = "foreign"  // by upstream's host-local, whose links nobody knows
	Resting  = "resting"  // released a short while ago
)

// Report is the result.
type Report struct {
	Network   string    `json:"network"`
	Ranges    []Range   `json:"ranges"`
	Addresses []Address `json:"addresses"`
	Problems  []Problem `json:"problems"`
	Remarks   []string  `json:"remarks,omitempty"`
}

// Range is one range set: a pod gets an address of each. Sizes are texts, as an
// IPv6 range has more addresses than a number in JSON can count.
type Range struct {
	Range string `json:"range"`
	Size  string `json:"size"`
	Taken int    `json:"taken"`
	Free  string `json:"free"`
}

// Address is one that is not simply free.
type Address struct {
	Address     netip.Addr `json:"address"`
	State       string     `json:"state"`
	Pod         string     `json:"pod,omitempty"`
	ContainerID string     `json:"containerID,omitempty"`
	IfName      string     `json:"ifName,omitempty"`
	// Seconds it goes on resting.
	Seconds int `json:"seconds,omitempty"`
}

// Problem is what somebody should do something about.
type Problem struct {
	Kind   string `json:"kind"`
	What   string `json:"what"`
	Remedy string `json:"remedy"`
}

// Kinds of problems.
const (
	Leak     = "leak"     // an address that nobody has and nobody gets
	Conflict = "conflict" // an address that two may have
	Spoilt   = "spoilt"   // a file that names nobody
	Outside  = "outside"  // a reservation that is of no range
)

type auditor struct {
	Facts
	report Report
	links  map[string]Link
	pods   map[[2]string]string // by container and interface
	ids    map[string]bool      // containers that the runtime knows
	held   map[netip.Addr]store.Owner
}

// Run compares.
func Run(f Facts) Report {
	a := auditor{Facts: f, links: map[string]Link{}, pods: map[[2]string]string{}, ids: map[string]bool{}, held: map[netip.Addr]store.Owner{}}
	a.report = Report{Network: f.Network, Ranges: []Range{}, Addresses: []Address{}, Problems: []Problem{}}
	for _, l := range f.Links {
		a.links[l.Name] = l
	}
	for _, t := range f.Attachments {
		a.pods[[2]string{t.ContainerID, t.IfName}], a.ids[t.ContainerID] = t.Pod, true
	}
	if !f.Sure {
		a.report.Remarks = append(a.report.Remarks, "the runtime's list of attachments is not there: what it does not know cannot be told")
	}
	for _, r := range f.Files.Reservations {
		a.reservation(r)
	}
	for _, addr := range f.Files.Spoilt {
		a.problem(Spoilt, fmt.Sprintf("the file of %s names no container", addr), "nothing: it is put aside when its address is needed, unless a route leads there")
	}
	for addr, left := range f.Files.Resting {
		a.report.Addresses = append(a.report.Addresses, Address{Address: addr, State: Resting, Seconds: int(left / time.Second)})
	}
	for _, l := range f.Links {
		a.link(l)
	}
	for _, s := range f.Sets {
		a.count(s)
	}
	slices.SortFunc(a.report.Addresses, func(x, y Address) int { return x.Address.Compare(y.Address) })
	slices.SortFunc(a.report.Problems, func(x, y Problem) int {
		return cmp.Or(cmp.Compare(x.Kind, y.Kind), cmp.Compare(x.What, y.What))
	})
	return a.report
}

func (a *auditor) problem(kind, what, remedy string) {
	a.report.Problems = append(a.report.Problems, Problem{kind, what, remedy})
}

// reservation is what one owner has, by its files.
func (a *auditor) reservation(r store.Reservation) {
	link, linked := a.links[a.LinkOf(r.Owner.ContainerID, r.Owner.IfName)]
	state := Used
	switch {
	case !r.Ours:
		state = Foreign
	case !linked:
		state = Reserved
	}
	pod := a.pods[[2]string{r.Owner.ContainerID, r.Owner.IfName}]
	if _, name, ok := strings.Cut(link.Alias, ":"); pod == "" && ok && strings.Contains(name, "/") {
		pod = name
	}
	for _, addr := range r.Addrs {
		a.held[addr] = r.Owner
		a.report.Addresses = append(a.report.Addresses, Address{addr, state, pod, r.Owner.ContainerID, r.Owner.IfName, 0})
		if len(a.Sets) > 0 && !slices.ContainsFunc(a.Sets, func(s allocator.Set) bool { return s.Gives(addr) }) {
			a.problem(Outside, fmt.Sprintf("%s of %s is of no range of this node", addr, name(pod, r.Owner)), "delete the pod, so that it is made again; others do not reach it when the node's range has changed")
		}
	}
	known := a.ids[r.Owner.ContainerID]
	switch {
	case !r.Ours || r.Busy:
	case !linked && known:
		a.problem(Leak, fmt.Sprintf("%v of %s: its link is gone, and the runtime has not deleted it", r.Addrs, name(pod, r.Owner)), "delete the pod; a runtime that is asked again finishes")
	case !linked && a.Sure:
		a.problem(Leak, fmt.Sprintf("%v of %s: neither its link nor the runtime knows of it", r.Addrs, name(pod, r.Owner)), "nothing, while poplind runs: it releases it within a few minutes")
	case linked && !known && a.Sure:
		a.problem(Leak, fmt.Sprintf("%v of %s: the runtime does not know the container", r.Addrs, name(pod, r.Owner)), "find out whether it is there (crictl pods); if it is not, delete its link "+link.Name+", and poplind releases the rest")
	}
}

// link is what the kernel has, which files may not say.
func (a *auditor) link(l Link) {
	for _, addr := range l.Addrs {
		_, pod, _ := strings.Cut(l.Alias, ":")
		switch owner, held := a.held[addr]; {
		case !held:
			a.problem(Conflict, fmt.Sprintf("%s is used by %s (link %s) and not reserved: another pod may be given it", addr, cmp.Or(pod, "a container"), l.Name), "delete the pod, so that it is made again")
		case a.LinkOf(owner.ContainerID, owner.IfName) != l.Name:
			a.problem(Conflict, fmt.Sprintf("%s is reserved for container %s and used by %s (link %s)", addr, owner.ContainerID, cmp.Or(pod, "a container"), l.Name), "delete both pods, so that they are made again")
		}
	}
}

// count says how much of a set is left.
func (a *auditor) count(s allocator.Set) {
	var texts []string
	for _, one := range s {
		texts = append(texts, one.String())
	}
	size, taken := Usage(s, slices.Collect(maps.Keys(a.held)))
	r := Range{Range: strings.Join(texts, ", "), Size: size.String(), Taken: taken}
	r.Free = size.Sub(size, big.NewInt(int64(taken))).String()
	a.report.Ranges = append(a.report.Ranges, r)
}

// Usage is how many addresses a set gives, and how many of them are held.
func Usage(s allocator.Set, held []netip.Addr) (size *big.Int, taken int) {
	size = new(big.Int)
	for _, one := range s {
		size.Add(size, sizeOf(one))
	}
	for _, addr := range held {
		if s.Gives(addr) {
			taken++
		}
	}
	return size, taken
}

// sizeOf is how many addresses a range gives. It is here because the CNI plugin
// never asks.
func sizeOf(r allocator.Range) *big.Int {
	first, last := new(big.Int).SetBytes(r.First.AsSlice()), new(big.Int).SetBytes(r.Last.AsSlice())
	size := last.Sub(last, first).Add(last, big.NewInt(1))
	// What a range holds and does not give: its subnet's address, its gateway,
	// and an IPv4 broadcast, which can only be the last.
	never := []netip.Addr{r.Subnet.Addr(), r.Gateway, r.Last}
	slices.SortFunc(never, netip.Addr.Compare)
	for _, a := range slices.Compact(never) {
		if !a.Less(r.First) && !r.Last.Less(a) && !r.Gives(a) {
			size.Sub(size, big.NewInt(1))
		}
	}
	return size
}

func name(pod string, o store.Owner) string {
	if pod != "" {
		return "pod " + pod
	}
	return "container " + o.ContainerID
}
