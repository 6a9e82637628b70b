package services

import (
	"errors"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strconv"
	"time"

	"poplin.dev/poplin/pkg/apply/kubeproxy"
	"poplin.dev/poplin/pkg/apply/listening"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program"
)

// Conntrack is how the kernel tracks connections; what is 0 is left alone.
type Conntrack struct {
	MaxPerCore, Min              int
	TCPEstablished, TCPCloseWait time.Duration
	TCPBeLiberal                 bool
	UDP, UDPStream               time.Duration
}

// mostTracked is where more CPUs do not raise the limit any further.
const mostTracked = 1 << 20

// settings are the sysctls of a machine with so many CPUs.
func (c Conntrack) settings(cpus int) (list []program.Sysctl) {
	add := func(key string, value int, atLeast bool) {
		if value > 0 {
			list = append(list, program.Sysctl{Key: "netfilter/nf_conntrack_" + key, Value: strconv.Itoa(value), AtLeast: atLeast, Shared: true, Optional: true})
		}
	}
	most := max(min(c.MaxPerCore*cpus, mostTracked), c.Min)
	add("max", most, true)
	add("buckets", most/4, true)
	seconds := func(d time.Duration) int { return int(math.Ceil(d.Seconds())) }
	add("tcp_timeout_established", seconds(c.TCPEstablished), false)
	add("tcp_timeout_close_wait", seconds(c.TCPCloseWait), false)
	add("udp_timeout", seconds(c.UDP), false)
	add("udp_timeout_stream", seconds(c.UDPStream), false)
	if c.TCPBeLiberal {
		add("tcp_be_liberal", 1, false)
	}
	return list
}

// keepSettings makes the kernel's connection tracking as it should be. The
// size of its table is the whole machine's and cannot be set from a container's
// network namespace, say: that is worth a warning, and no reason to stop.
func (p *pass) keepSettings() {
	for _, s := range p.deps.Config.Conntrack.settings(runtime.NumCPU()) {
		_, err := p.sysctls.Set([]program.Sysctl{s})
		p.problem(s.Key, err)
	}
}

// claim is a node port.
type claim struct {
	proto service.Protocol
	port  uint16
}

// keepPorts keeps new node ports from sockets that ask for any port, and says
// where a program of this node has one already: its clients on other nodes
// and outside reach the Service, and it hears nothing.
func (p *pass) keepPorts(changed []service.Key) {
	fresh, numbers := map[claim]service.Key{}, []uint16{}
	for _, k := range changed {
		s, _ := p.deps.Source.Service(k)
		for _, port := range s.Ports {
			if c := (claim{port.Protocol, port.NodePort}); c.port != 0 && !p.claimed[c] {
				p.claimed[c], fresh[c] = true, k
				numbers = append(numbers, c.port)
			}
		}
	}
	if len(fresh) == 0 {
		return
	}
	p.problem("ports", p.sysctls.Reserve(numbers))
	sockets, err := listening.Sockets()
	p.problem("sockets", err)
	taken := map[claim]error{}
	for _, s := range sockets {
		c := claim{s.Proto, s.At.Port()}
		k, ours := fresh[c]
		if !ours || !s.At.Addr().IsUnspecified() && !slices.Contains(p.node.NodePortAddresses, s.At.Addr()) {
			continue
		}
		message := fmt.Sprintf("a program of node %s listens at %s %s, a node port of Service %s: connections go to the Service's endpoints", p.node.Name, s.Proto, s.At, k)
		taken[c] = errors.New(message)
		p.deps.Event(p.deps.Source.Reference(k, false), reason.NodePortInUse, message)
	}
	for c := range fresh {
		p.problem(fmt.Sprint("port ", c), taken[c])
	}
}

// problem logs what concerns no Service, once until it changes.
func (p *pass) problem(about string, err error) {
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != p.problems[about] && text != "" {
		p.deps.Log.Warn("the node is not as it should be", "error", err)
	}
	if p.problems[about] = text; text == "" {
		delete(p.problems, about)
	}
}

// succeed removes what kube-proxy left, once it has gone and Services are in
// place here.
func (p *pass) succeed() {
	removed, err := kubeproxy.Remove()
	if p.problem("kube-proxy", err); err != nil {
		time.AfterFunc(time.Minute, p.SetAlone)
	}
	if len(removed) > 0 {
		p.deps.Log.Info("removed what kube-proxy left", "what", removed)
	}
}
