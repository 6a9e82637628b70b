// Package facts is what one node held at one moment, as plain values that
// travel as JSON: what its kernel, its files and its daemon say. Readers fill
// it in on the node (daemon/query), explanations are made elsewhere
// (pkg/trace/path). What could not be read is named in Missing, so that nobody
// takes ignorance for absence. It refuses to hold anything secret, and to hold
// more than is asked for: a question names flows, and what concerns none of
// their addresses stays on the node.
package facts

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
)

// Version is raised when an older reader could not understand the JSON.
const Version = 1

// Kind is a part of the facts that can be asked for by itself.
type Kind string

// The kinds.
const (
	OfDaemon  Kind = "daemon"  // what the daemon says of itself, and its files
	OfNetwork Kind = "network" // links, routes, neighbours, sysctls
	OfRules   Kind = "rules"   // nftables: ours, and others' that see packets
	OfFlows   Kind = "flows"   // connection tracking
	OfPods    Kind = "pods"    // the inside of pods
	OfPeers   Kind = "peers"   // answers of other nodes to packets of our own
	OfCluster Kind = "cluster" // the API's objects, as the daemon knows them
)

// Kinds are all of the node's own: the cluster is large, and has to be asked for.
func Kinds() []Kind { return []Kind{OfDaemon, OfNetwork, OfRules, OfFlows, OfPods, OfPeers} }

// Node is the answer.
type Node struct {
	Version int       `json:"version"`
	Name    string    `json:"node"`
	Taken   time.Time `json:"taken"`
	// Missing has, by kind or a part of one, why it is not known.
	Missing map[string]string `json:"missing,omitempty"`

	Daemon  *Daemon  `json:"daemon,omitempty"`
	Network *Network `json:"network,omitempty"`
	Rules   *Rules   `json:"rules,omitempty"`
	Flows   *Flows   `json:"flows,omitempty"`
	Pods    []Pod    `json:"pods,omitempty"`
	Peers   []Peer   `json:"peers,omitempty"`
	Cluster *Cluster `json:"cluster,omitempty"`
}

// Lacks notes why a part is not known.
func (n *Node) Lacks(part string, err error) {
	if err == nil {
		return
	}
	if n.Missing == nil {
		n.Missing = map[string]string{}
	}
	n.Missing[part] = err.Error()
}

// Question is what a node is asked.
type Question struct {
	Kinds []Kind `json:"kinds"`
	// Flows narrow the answer to what concerns their addresses; without any,
	// it is about everything.
	Flows []Flow `json:"flows,omitempty"`
	// Peers are other nodes' addresses, inside and below the overlay, to
	// which packets of our own are sent.
	Peers []Way `json:"peers,omitempty"`
}

// Asks reports whether a kind is asked for.
func (q Question) Asks(k Kind) bool { return slices.Contains(q.Kinds, k) }

// About are the addresses of all flows.
func (q Question) About() []netip.Addr {
	var list []netip.Addr
	for _, f := range q.Flows {
		for _, a := range []netip.Addr{f.Src, f.To.Addr()} {
			if a.IsValid() && !slices.Contains(list, a) {
				list = append(list, a)
			}
		}
	}
	return list
}

// Flow is a connection that somebody might open.
type Flow struct {
	// Src is invalid where it is the node's own choice.
	Src   netip.Addr
	To    netip.AddrPort
	Proto service.Protocol
}

// String is such as tcp,10.244.1.5,10.96.0.1:443; the middle part may be empty.
func (f Flow) String() string {
	src := ""
	if f.Src.IsValid() {
		src = f.Src.String()
	}
	return fmt.Sprintf("%s,%s,%s", f.Proto, src, f.To)
}

// MarshalText implements encoding.TextMarshaler.
func (f Flow) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what String writes.
func (f *Flow) UnmarshalText(text []byte) error {
	parts := strings.Split(string(text), ",")
	if len(parts) != 3 {
		return fmt.Errorf("flow %q: write PROTOCOL,SOURCE,ADDRESS:PORT, such as tcp,10.244.1.5,10.96.0.1:443", text)
	}
	var err error
	if f.Proto, err = service.ParseProtocol(parts[0]); err != nil {
		return fmt.Errorf("flow %q: %w", text, err)
	}
	if parts[1] != "" {
		if f.Src, err = netip.ParseAddr(parts[1]); err != nil {
			return fmt.Errorf("flow %q: source: %w", text, err)
		}
	}
	if f.To, err = netip.ParseAddrPort(parts[2]); err != nil {
		return fmt.Errorf("flow %q: destination: %w", text, err)
	}
	return nil
}

// Rules are nftables' tables.
type Rules struct {
	// Services, Policy and Overlay are Poplin's, with what of them is missing
	// or not as this version makes it.
	Services Services `json:"services"`
	Policy   Policy   `json:"policy"`
	Overlay  Overlay  `json:"overlay"`
	// Foreign are chains of other programs that see packets of pods.
	Foreign []Chain `json:"foreign,omitempty"`
}

// Services is the table inet poplin-services.
type Services struct {
	vip.Program
	Wrong []string `json:"wrong,omitempty"`
}

// Policy is the table inet poplin-policy.
type Policy struct {
	permit.Program
	Wrong []string `json:"wrong,omitempty"`
}

// Overlay is the table inet poplin: guards and masquerade.
type Overlay struct {
	Sets map[string][]netip.Prefix `json:"sets,omitempty"`
	// Counters have the packets that each counter has seen.
	Counters map[string]uint64 `json:"counters,omitempty"`
	Wrong    []string          `json:"wrong,omitempty"`
}

// Flows is connection tracking.
type Flows struct {
	// Count of Max entries are in use.
	Count int `json:"count"`
	Max   int `json:"max"`
	// Known are entries that concern the question.
	Known []Known `json:"known,omitempty"`
}

// Known is one entry of connection tracking.
type Known struct {
	Proto service.Protocol `json:"proto"`
	// Src opened it to Dst, and To answers it, or is to.
	Src netip.AddrPort `json:"src"`
	Dst netip.AddrPort `json:"dst"`
	To  netip.AddrPort `json:"to"`
	// Answered says that a packet came back.
	Answered bool `json:"answered"`
	// Left is how long it still lives without a packet, in seconds.
	Left int `json:"left"`
}

// Way is another node, seen from this one.
type Way struct {
	Node string `json:"node"`
	// Outer is its address below the overlay, Inner that of its overlay
	// device, From this node's own there, and MTU what should pass.
	Outer netip.Addr `json:"outer"`
	Inner netip.Addr `json:"inner"`
	From  netip.Addr `json:"from"`
	MTU   int        `json:"mtu"`
}

// Peer is how another node answered packets of our own.
type Peer struct {
	Way
	// Small and Large say whether a packet of a few bytes, and one of the
	// MTU's size, was answered through the overlay; Below the same of a small
	// one beside it.
	Small bool `json:"small"`
	Large bool `json:"large"`
	Below bool `json:"below"`
	// Size is the largest packet that was answered, where that is not the MTU.
	Size int `json:"size,omitempty"`
}

// Daemon is what poplind says of itself, and what its files say.
type Daemon struct {
	// Running is false where nobody answers on the socket: then the report is
	// empty, and Problem says why.
	Running bool   `json:"running"`
	Problem string `json:"problem,omitempty"`
	Version string `json:"version,omitempty"`
	Ready   bool   `json:"ready"`
	// Waiting is what parts of the daemon wait for, by name.
	Waiting map[string]string `json:"waiting,omitempty"`
	// Refused are nodes that are not programmed, with the reason.
	Refused map[string]string `json:"refused,omitempty"`

	Settings Settings `json:"settings"`
	// Conflist is the file's path; empty if there is none.
	Conflist string `json:"conflist,omitempty"`
	// Ranges are this node's, with the addresses left for pods.
	Ranges []Range `json:"ranges,omitempty"`
	// Leaks and the like, in words.
	Problems []string `json:"problems,omitempty"`
	// HostPorts are those of this node's pods.
	HostPorts []HostPort `json:"hostPorts,omitempty"`
}

// Settings are keys of the configuration that explanations need.
type Settings struct {
	Services          bool           `json:"services"`
	Policy            bool           `json:"policy"`
	NodePortAddresses []netip.Prefix `json:"nodePortAddresses,omitempty"` // none: the primary ones
	ExternalRanges    []netip.Prefix `json:"externalRanges,omitempty"`
	VNI               uint32         `json:"vni"`
	Port              uint16         `json:"port"`
	PodInspection     bool           `json:"podInspection"`
}

// Range is a range of pods' addresses. Free is a text, as an IPv6 range has
// more than a number in JSON can count.
type Range struct {
	Range string `json:"range"`
	Taken int    `json:"taken"`
	Free  string `json:"free"`
}

// HostPort is a port of the node that leads to a pod.
type HostPort struct {
	Proto service.Protocol `json:"proto"`
	// Addr is unspecified for all of the node's.
	Addr netip.Addr     `json:"addr"`
	Port uint16         `json:"port"`
	To   netip.AddrPort `json:"to"`
	Pod  string         `json:"pod,omitempty"`
}
