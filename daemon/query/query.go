// Package query answers what others ask about a node: it puts facts of the
// kernel, of the node's files and of the daemon's report together, on the node
// and in its network. Inputs are a question and where things are; output is
// facts.Node, each part that could not be read with its reason. It refuses to
// change anything, and needs no daemon that runs.
package query

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"poplin.dev/poplin/daemon/ipam"
	"poplin.dev/poplin/daemon/snapshot"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/apply/flows"
	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/pkg/apply/inspect"
	"poplin.dev/poplin/pkg/apply/nft"
	"poplin.dev/poplin/pkg/apply/permit"
	"poplin.dev/poplin/pkg/apply/sandbox"
	"poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/overlay"
	"poplin.dev/poplin/plugins/hostlocal/audit"
	"poplin.dev/poplin/plugins/hostport/store"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// Places say where the node's files are.
type Places struct {
	// Config is the daemon's configuration; where there is no such file and no
	// daemon to ask for it, its defaults count.
	Config string
	// Socket is the daemon's, StateDir and CNICache are directories.
	Socket, StateDir, CNICache string
	// Inspect has the inside of pods looked at, whatever the configuration
	// says.
	Inspect bool
	// Silent, if not nil, remembers from one question to the next that the daemon
	// hangs, so that one command waits for it once.
	Silent *atomic.Bool
}

const (
	// mostFlows and mostPods bound the answer.
	mostFlows = 10_000
	mostPods  = 32
)

// Run answers.
func Run(ctx context.Context, p Places, node string, q facts.Question) facts.Node {
	n := facts.Node{Version: facts.Version, Name: node, Taken: time.Now().UTC()}
	if p.Silent == nil {
		p.Silent = &atomic.Bool{}
	}
	a := answer{Node: &n, places: p, question: q}
	a.settings = a.readConfig(ctx)
	// Other nodes take their time, while the rest is read.
	var answers sync.WaitGroup
	if q.Asks(facts.OfPeers) {
		answers.Go(func() { n.Peers = inspect.Peers(q.Peers) })
	}
	for _, part := range []struct {
		kind facts.Kind
		read func(context.Context)
	}{
		{facts.OfDaemon, a.daemon}, {facts.OfNetwork, a.network}, {facts.OfRules, a.rules},
		{facts.OfFlows, a.flows}, {facts.OfPods, a.pods}, {facts.OfCluster, a.cluster},
	} {
		if q.Asks(part.kind) {
			part.read(ctx)
		}
	}
	answers.Wait()
	return n
}

type answer struct {
	*facts.Node
	places   Places
	question facts.Question
	settings config.Config
}

// readConfig reads the daemon's file, or, outside its pod, asks for it.
func (a *answer) readConfig(ctx context.Context) config.Config {
	text, err := os.ReadFile(a.places.Config)
	if errors.Is(err, fs.ErrNotExist) {
		var told string
		told, err = tell(ctx, a.places, patience, status.Config)
		text = []byte(told)
	}
	if err != nil {
		a.Lacks("settings", fmt.Errorf("defaults are taken: %w", err))
		return config.Default()
	}
	c, err := config.Parse(text)
	if err != nil {
		a.Lacks("settings", err)
		return config.Default()
	}
	return c
}

func (a *answer) port() uint16 { return uint16(a.settings.Overlay.Port) }

func (a *answer) daemon(ctx context.Context) {
	c := a.settings
	d := &facts.Daemon{Settings: facts.Settings{
		Services: c.Services.Enabled, Policy: c.Policy.Enabled, ExternalRanges: c.Services.ExternalIPCIDRs,
		VNI: uint32(c.Overlay.VNI), Port: a.port(), PodInspection: a.inspects(),
	}}
	d.Settings.NodePortAddresses, _ = c.Services.NodePortRanges() // parsed: valid
	if r, err := tell(ctx, a.places, patience, status.Read); err != nil {
		d.Problem = err.Error()
	} else {
		d.Running, d.Ready, d.Version, d.Conflist = true, r.Ready, r.Version, r.Conflist
		d.Waiting, d.Refused = map[string]string{}, map[string]string{}
		for _, t := range r.Tasks {
			if t.Waiting != "" {
				d.Waiting[t.Name] = t.Waiting
			}
		}
		for _, x := range r.Refused {
			d.Refused[x.Node] = x.Reason
		}
	}
	a.Daemon = d
	report, err := a.addresses()
	a.Lacks("addresses", err)
	for _, r := range report.Ranges {
		d.Ranges = append(d.Ranges, facts.Range{Range: r.Range, Taken: r.Taken, Free: r.Free})
	}
	for _, p := range report.Problems {
		d.Problems = append(d.Problems, p.Kind+": "+p.What)
	}
	ports, err := hostPorts(filepath.Join(a.places.StateDir, "hostports"))
	a.Lacks("hostPorts", err)
	d.HostPorts = ports
}

// cluster is what the daemon knows; of one that does not run, its file says which
// nodes there are.
func (a *answer) cluster(ctx context.Context) {
	c, err := tell(ctx, a.places, longer, status.Cluster)
	if err != nil {
		c = facts.Cluster{Problem: err.Error()}
		c.Lacks("services", err.Error())
		c.Lacks("policy", err.Error())
		c.Since, c.Self, c.Nodes, err = snapshot.Last(filepath.Join(a.places.StateDir, "nodes.json"), a.Name)
	}
	a.Lacks(string(facts.OfCluster), err)
	a.Cluster = &c
}

// conflist is where the daemon writes it.
func (a *answer) conflist() string {
	return filepath.Join(a.settings.CNI.ConfDir, "10-"+a.settings.CNI.Name+".conflist")
}

func (a *answer) addresses() (audit.Report, error) {
	return ipam.Inspect(a.conflist(), a.places.CNICache)
}

func hostPorts(dir string) (list []facts.HostPort, err error) {
	d, ok, err := store.OpenExisting(dir)
	if err != nil || !ok {
		return nil, err
	}
	defer d.Close()
	entries, damaged, err := d.List()
	for _, e := range entries {
		for _, x := range e.Elements {
			list = append(list, facts.HostPort{
				Proto: service.Protocol(x.Protocol), Addr: x.Host, Port: x.HostPort,
				To: netip.AddrPortFrom(x.Pod, x.PodPort), Pod: e.Pod,
			})
		}
	}
	return list, errors.Join(damaged, err)
}

// sysctls decide whether packets pass.
var sysctls = []string{
	"ipv4/ip_forward", "ipv6/conf/all/forwarding", "ipv4/conf/all/rp_filter", "ipv4/conf/all/forwarding",
	"netfilter/nf_conntrack_count", "netfilter/nf_conntrack_max", "ipv4/neigh/default/gc_thresh3", "ipv6/neigh/default/gc_thresh3",
}

func (a *answer) network(context.Context) {
	var also []netip.Addr
	for _, w := range a.question.Peers {
		also = append(also, w.Outer, w.Inner)
	}
	if len(a.question.Flows) == 0 {
		also = nil
	}
	var links []string
	attached, _ := a.attached() // what cannot be read is said where pods are asked for
	for _, p := range attached {
		links = append(links, p.HostLink)
	}
	// What cannot be read of them is said where they are asked for.
	chains, _ := foreign.Chains(nft.Name)
	var err error
	a.Network, err = inspect.Network(inspect.Options{Flows: a.question.Flows, Also: also, Links: links, Sysctls: sysctls, Sockets: true, Mark: marks(chains)})
	a.Lacks(string(facts.OfNetwork), err)
}

// marks are those that chains give packets which come in, before they are routed.
func marks(chains []facts.Chain) func(facts.Flow, string) uint32 {
	return func(f facts.Flow, in string) uint32 {
		l, _ := facts.Label(chains, "prerouting", math.MaxInt, facts.Packet{Flow: f, In: in})
		return l.Mark
	}
}

func (a *answer) rules(context.Context) {
	r := &facts.Rules{}
	a.Rules = r
	var err error
	about := a.question.About()
	r.Services.Program, r.Services.Wrong, err = vip.Look()
	a.Lacks("rules.services", err)
	r.Policy.Program, r.Policy.Wrong, err = permit.Look()
	a.Lacks("rules.policy", err)
	if len(about) > 0 {
		r.Services.Program, r.Policy.Program = r.Services.About(about), r.Policy.About(about)
	}
	// Rules are the same for any node and peers: those are elements of sets.
	seen, err := nft.Look(overlay.Guards(overlay.Self{Port: a.port(), Underlay: cluster.Underlay{Addr: netip.IPv4Unspecified()}}, nil))
	a.Lacks("rules.overlay", err)
	r.Overlay = facts.Overlay(seen)
	r.Foreign, err = foreign.Chains(nft.Name)
	a.Lacks("rules.foreign", err)
}

func (a *answer) flows(context.Context) {
	f := &facts.Flows{}
	a.Flows = f
	f.Count, f.Max = number("netfilter/nf_conntrack_count"), number("netfilter/nf_conntrack_max")
	c, err := flows.Open()
	if err != nil {
		a.Lacks(string(facts.OfFlows), err)
		return
	}
	defer c.Close()
	about := a.question.About()
	f.Known, err = c.List(mostFlows, func(k facts.Known) bool {
		return len(about) == 0 || slices.Contains(about, k.Src.Addr()) && (slices.Contains(about, k.Dst.Addr()) || slices.Contains(about, k.To.Addr()))
	})
	a.Lacks(string(facts.OfFlows), err)
}

func number(key string) (n int) {
	text, err := os.ReadFile(filepath.Join("/proc/sys/net", key))
	if err == nil {
		_, _ = fmt.Sscan(string(text), &n) // 0 where there is none
	}
	return n
}

// inspects reports whether pods' namespaces may be entered.
func (a *answer) inspects() bool { return a.places.Inspect || a.settings.Trace.PodInspection }

// attached are the pods of the question, and where their network namespaces are.
func (a *answer) attached() (list []attached, err error) {
	known, err := sandbox.Read(a.places.CNICache)
	if err != nil {
		return nil, err
	}
	report, err := a.addresses()
	a.Lacks("addresses", err)
	held := map[string][]netip.Addr{}
	for _, x := range report.Addresses {
		held[x.ContainerID+"/"+x.IfName] = append(held[x.ContainerID+"/"+x.IfName], x.Address)
	}
	about := a.question.About()
	for _, t := range known.Attachments {
		addrs := held[t.ContainerID+"/"+t.IfName]
		if len(about) > 0 && !slices.ContainsFunc(addrs, func(x netip.Addr) bool { return slices.Contains(about, x) }) {
			continue
		}
		list = append(list, attached{t.NetNS, facts.Pod{
			Name: t.Pod, Container: t.ContainerID, Interface: t.IfName,
			HostLink: plan.HostName(t.ContainerID, t.IfName), Addresses: addrs,
		}})
	}
	return list, nil
}

type attached struct {
	netns string
	facts.Pod
}

func (a *answer) pods(context.Context) {
	list, err := a.attached()
	a.Lacks(string(facts.OfPods), err)
	for _, x := range list {
		p := x.Pod
		switch {
		case !a.inspects():
			p.Hidden = inspect.ErrAccess.Error()
		case x.netns == "":
			p.Hidden = "the runtime does not say where the pod's network namespace is"
		case len(a.Pods) >= mostPods:
			p.Hidden = fmt.Sprintf("only %d pods are looked into", mostPods)
		default:
			inside, chains, err := inspect.Inside(netnsPath(x.netns), inspect.Options{Flows: a.question.Flows, Sockets: true, Sysctls: sysctls[:3]})
			p.Chains = chains
			if p.Inside = inside; err != nil {
				p.Hidden = err.Error()
			}
		}
		a.Pods = append(a.Pods, p)
	}
}

// netnsPath spells the directory of namespaces as the daemon's container has it.
func netnsPath(path string) string {
	if rest, ok := strings.CutPrefix(path, "/var/run/"); ok {
		return "/run/" + rest
	}
	return path
}
