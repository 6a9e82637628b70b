// Package doctor examines a node. Inputs are what the kernel, the node's files
// and the daemon say, each asked and none guessed from a version; output is a
// list of checks, each with what was found and, where that is not well, the cure.
// It changes nothing but for probes that it takes back, and it needs no daemon:
// a node can be examined before Poplin is on it. It refuses to call well what it
// could not look at.
package doctor

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/status"
)

// State is how a check came out.
type State string

// Unknown says that it could not be looked at.
const (
	Well    State = "ok"
	Warning State = "warning"
	Broken  State = "broken"
	Unknown State = "unknown"
)

// Check is one thing that was looked at.
type Check struct {
	Name  string `json:"name"`
	State State  `json:"state"`
	Found string `json:"found"`
	Cure  string `json:"cure,omitempty"`
}

// Report is an examination.
type Report struct {
	Node   string    `json:"node"`
	Taken  time.Time `json:"taken"`
	Checks []Check   `json:"checks"`
}

// skew is how far nodes' clocks may be apart: certificates and tokens have
// limits in time. What was asked at once is answered within a few seconds.
const skew = 10 * time.Second

// Clocks adds to each of several reports that were asked for at the same time how
// its node's clock stands to the middle of them.
func Clocks(list []Report) []Report {
	var times []time.Time
	for _, r := range list {
		if !r.Taken.IsZero() {
			times = append(times, r.Taken)
		}
	}
	if len(times) < 2 {
		return list
	}
	slices.SortFunc(times, time.Time.Compare)
	middle := times[len(times)/2]
	for i, r := range list {
		if r.Taken.IsZero() {
			continue
		}
		off, state := r.Taken.Sub(middle).Round(time.Second), Well
		if off.Abs() > skew {
			state = Broken
		}
		list[i].Checks = append(list[i].Checks, check("clock", state, "have the node ask a time server (timedatectl set-ntp true)", "%s from the other nodes'", off))
	}
	return list
}

// Worst is the worst of its checks.
func (r Report) Worst() State {
	order := []State{Well, Unknown, Warning, Broken}
	worst := Well
	for _, c := range r.Checks {
		if slices.Index(order, c.State) > slices.Index(order, worst) {
			worst = c.State
		}
	}
	return worst
}

// Text is the report for people.
func (r Report) Text(w io.Writer) error {
	for _, c := range r.Checks {
		if _, err := fmt.Fprintf(w, "%-8s %s: %s\n", c.State, c.Name, c.Found); err != nil {
			return err
		}
		if c.Cure != "" {
			if _, err := fmt.Fprintf(w, "%8s cure: %s\n", "", c.Cure); err != nil {
				return err
			}
		}
	}
	return nil
}

// Facts are what a node is judged by. An error in place of a value says that it
// is not known.
type Facts struct {
	// Features are what the kernel was asked for, by name; nil: it has it.
	Features map[string]error
	// Owned says that nftables tables can be owned.
	Owned bool
	// Daemon is nil where none answers, for DaemonErr.
	Daemon    *status.Report
	DaemonErr error
	// Sysctls are values below /proc/sys/net; a missing one is not there.
	Sysctls map[string]int
	// Links are the node's devices with their MTU.
	Links map[string]int
	// Blocking are others' chains that drop what is forwarded.
	Blocking    []string
	BlockingErr error
	// Conflists are the files that the runtime may take, in its order.
	Conflists    []string
	ConflistsErr error
	// Addresses are problems of the IPAM, each with its remedy.
	Addresses    [][2]string
	AddressesErr error
}

// Judge makes the checks.
func Judge(f Facts) []Check {
	var all []Check
	for _, examine := range []func(Facts) []Check{features, daemon, sysctls, firewalls, devices, conflists, addresses} {
		all = append(all, examine(f)...)
	}
	return all
}

func check(name string, state State, cure, found string, args ...any) Check {
	if state == Well {
		cure = ""
	}
	return Check{name, state, strings.ReplaceAll(fmt.Sprintf(found, args...), "\n", "; "), cure}
}

func features(f Facts) (list []Check) {
	for _, name := range slices.Sorted(maps.Keys(f.Features)) {
		if err := f.Features[name]; err != nil {
			list = append(list, check("kernel: "+name, Broken, "load or build what the error names; docs/install.md lists what a kernel needs", "it was asked, and refused: %v", err))
			continue
		}
		list = append(list, check("kernel: "+name, Well, "", "made and removed"))
	}
	if f.Owned {
		return append(list, check("kernel: owned tables", Well, "", "other programs cannot flush Poplin's rules while it runs"))
	}
	return append(list, check("kernel: owned tables", Warning, "nothing has to be done; a kernel of 6.9 or later keeps others from Poplin's rules",
		"this kernel has none: rules that another program flushes are put back within a moment"))
}

func daemon(f Facts) (list []Check) {
	const logs = "kubectl -n poplin-system logs of this node's poplind pod has more"
	r := f.Daemon
	if r == nil {
		return []Check{check("daemon", Broken, "start it: kubectl -n poplin-system get pods -o wide, and why this node has none that runs", "it does not answer: %v", f.DaemonErr)}
	}
	list = append(list, check("daemon", Well, "", "version %s, up since %s", r.Version, r.Started.Format(time.RFC3339)))
	for _, t := range r.Tasks {
		if t.Waiting != "" {
			list = append(list, check("daemon: "+t.Name, Broken, logs, "it waits for %s", t.Waiting))
		}
	}
	for _, p := range r.Refused {
		list = append(list, check("peer "+p.Node, Broken, "mend that node's range or NodeNetwork; nothing is sent there until then", "refused: %s", p.Reason))
	}
	if r.Peers > 0 {
		state, found := Well, fmt.Sprintf("%d programmed, none is silent", r.Peers)
		if len(r.Silent) > 0 {
			state, found = Warning, fmt.Sprintf("%d programmed, of which %s do not answer through the pod network", r.Peers, strings.Join(r.Silent, ", "))
		}
		list = append(list, check("peers", state, "let UDP port 8472 pass between the nodes both ways; a node that no other one reaches is down", "%s", found))
	}
	switch {
	case r.Checksums == "":
	case strings.Contains(r.Checksums, "driver or firmware is at fault"):
		list = append(list, check("checksum offload", Warning, "update driver and firmware of the card, then reboot: until then throughput suffers", "%s", r.Checksums))
	default:
		list = append(list, check("checksum offload", Well, "", "%s", r.Checksums))
	}
	if r.ConfigError != "" {
		list = append(list, check("configuration", Broken, "mend the key in ConfigMap poplin-config: the daemon would not start again", "%s", r.ConfigError))
	}
	if len(r.Pending) > 0 {
		list = append(list, check("configuration", Warning, "kubectl -n poplin-system rollout restart daemonset/poplind", "%s wait for a restart", strings.Join(r.Pending, ", ")))
	}
	return list
}

// full is when the table of connections is worth a word, in percent.
const full = 80

func sysctls(f Facts) (list []Check) {
	for _, s := range []struct{ key, what string }{
		{"ipv4/ip_forward", "IPv4"}, {"ipv6/conf/all/forwarding", "IPv6"},
	} {
		if !serves(f.Daemon, s.what) {
			continue
		}
		switch value, known := f.Sysctls[s.key]; {
		case !known:
			list = append(list, check("forwarding "+s.what, Unknown, "look for net/"+s.key+" on the node", "net/%s cannot be read", s.key))
		case value == 0:
			list = append(list, check("forwarding "+s.what, Broken, "find what sets net/"+s.key+" to 0 (ls /etc/sysctl.d): poplind puts it back within a second", "net/%s is 0: no packet of a pod leaves", s.key))
		default:
			list = append(list, check("forwarding "+s.what, Well, "", "on"))
		}
	}
	count, counted := f.Sysctls["netfilter/nf_conntrack_count"]
	limit, limited := f.Sysctls["netfilter/nf_conntrack_max"]
	if counted && limited && limit > 0 {
		state := Well
		if count*100 > limit*full {
			state = Broken
		}
		list = append(list, check("connections", state, "raise services.conntrack.min, or find who opens so many: poplinctl flows", "%d of %d tracked", count, limit))
	}
	return list
}

// serves reports whether a daemon's node has pods of a family; without a
// daemon, only IPv4 is certain.
func serves(r *status.Report, family string) bool {
	if r == nil {
		return family == "IPv4"
	}
	for _, p := range r.PodCIDRs {
		if p.Addr().Is4() == (family == "IPv4") {
			return true
		}
	}
	return false
}

func firewalls(f Facts) []Check {
	const name = "other firewalls"
	switch {
	case f.BlockingErr != nil:
		return []Check{check(name, Unknown, "run this as root, with NET_ADMIN", "chains cannot be listed: %v", f.BlockingErr)}
	case len(f.Blocking) > 0:
		return []Check{check(name, Broken, "let pods' packets pass there (iptables -I FORWARD -s RANGE -j ACCEPT, and -d), or set foreignFirewall: open", "drop what is forwarded: %s", strings.Join(f.Blocking, ", "))}
	}
	return []Check{check(name, Well, "", "none drops what is forwarded by policy; iptables-legacy is not seen")}
}

// others are devices by which other networks are known, by how their names begin.
var others = []struct{ prefix, network string }{
	{"cni0", "flannel or a bridge"}, {"flannel", "flannel"}, {"cali", "Calico"}, {"vxlan.calico", "Calico"},
	{"cilium", "Cilium"}, {"weave", "Weave"}, {"kube-bridge", "kube-router"}, {"kube-ipvs0", "kube-proxy in IPVS mode"},
	{"antrea", "Antrea"}, {"ovn-k8s", "OVN-Kubernetes"},
}

func devices(f Facts) (list []Check) {
	found := map[string][]string{}
	for name := range f.Links {
		for _, o := range others {
			if strings.HasPrefix(name, o.prefix) {
				found[o.network] = append(found[o.network], name)
			}
		}
	}
	for _, network := range slices.Sorted(maps.Keys(found)) {
		slices.Sort(found[network])
		list = append(list, check("leftovers", Warning, "uninstall it, drain the node and reboot it; or, once none of its pods is left: ip link delete", "devices of %s: %s", network, strings.Join(found[network], ", ")))
	}
	if r := f.Daemon; r != nil && r.Underlay != nil && r.MTU > 0 {
		state, cure, is := Well, "", f.Links[r.Underlay.Link]
		if is != 0 && is < r.MTU {
			state, cure = Broken, "give the device its MTU back, or set overlay.mtu lower"
		}
		list = append(list, check("MTU", state, cure, "%d for pods, %d of %s", r.MTU, cmp.Or(is, r.Underlay.MTU), r.Underlay.Link))
		var large []string
		for name, mtu := range f.Links {
			if strings.HasPrefix(name, "plw") && mtu > r.MTU {
				large = append(large, name)
			}
		}
		if len(large) > 0 {
			list = append(list, check("MTU of pods", Warning, "restart those pods: they were made when the overlay's MTU was larger", "%d links are above %d", len(large), r.MTU))
		}
	}
	return list
}

func conflists(f Facts) []Check {
	const name, ours = "runtime", conflist.File
	switch {
	case f.ConflistsErr != nil:
		return []Check{check(name, Unknown, "look at /etc/cni/net.d on the node", "its configurations cannot be listed: %v", f.ConflistsErr)}
	case len(f.Conflists) == 0:
		return []Check{check(name, Broken, "poplind writes one when the overlay is in place: see what the daemon waits for", "it has no network configuration")}
	case f.Conflists[0] != ours:
		return []Check{check(name, Warning, "unless that delegates to Poplin, as Multus does, remove it", "it takes %s", f.Conflists[0])}
	case len(f.Conflists) > 1:
		return []Check{check(name, Warning, "remove what is not used: it would count if Poplin's were gone", "it takes Poplin's, and would take %s", strings.Join(f.Conflists[1:], ", "))}
	}
	return []Check{check(name, Well, "", "it takes Poplin's configuration")}
}

func addresses(f Facts) (list []Check) {
	const name = "addresses"
	if f.AddressesErr != nil {
		return []Check{check(name, Unknown, "poplinctl ipam check on the node says more", "%v", f.AddressesErr)}
	}
	for _, p := range f.Addresses {
		list = append(list, check(name, Broken, p[1], "%s", p[0]))
	}
	if len(list) == 0 {
		list = append(list, check(name, Well, "", "reservations, links and routes agree"))
	}
	return list
}
