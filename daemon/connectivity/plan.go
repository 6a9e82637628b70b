package connectivity

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"poplin.dev/poplin/pkg/apply/echo"
	"poplin.dev/poplin/pkg/cluster/object"
)

// Check is one thing that is tried, from a pod.
type Check struct {
	// Kind is such as "pod" or "node port", From and To name both ends.
	Kind string `json:"kind"`
	From string `json:"from"`
	To   string `json:"to"`
	// Denied says that there must be no answer.
	Denied   bool          `json:"denied,omitempty"`
	Question echo.Question `json:"question"`
	// Problem is why it is not as it should be; empty where it is.
	Problem string `json:"problem,omitempty"`
	// Trace is the broken hop, where the check was traced.
	Trace string `json:"trace,omitempty"`

	pod   string // From's name
	asked bool
}

// ends are those of a check as poplinctl trace takes them; there are none for
// what must be denied, and for a proxy, which is asked by another name.
func (c Check) ends() (from, to string, ok bool) {
	to = c.Question.Address
	if c.Question.UDP {
		to += "/udp"
	}
	return "pod/" + c.pod, to, !c.Denied && c.Question.Host == "" && c.Kind != "DNS"
}

// scene is what there is to test with.
type scene struct {
	namespace string
	pods      []object.Pod // one on each node
	guarded   object.Pod
	friend    object.Pod
	service   object.Service
	nodes     []object.Node
	// edge is where the Ingress proxy is asked; none without one.
	edge []netip.Addr
}

// large is the body that does not fit one packet; packet fills one of the
// smallest MTU that an overlay over Ethernet has.
const (
	large  = 300_000
	packet = 1200
)

// plan is everything that is tried, in an order in which the first failure tells
// most: what the later rests on comes first.
func (s scene) plan() (list []Check) {
	for _, from := range s.pods {
		add := func(kind, to string, q echo.Question) {
			list = append(list, Check{Kind: kind, From: about(from), To: to, Question: q, pod: from.Name})
		}
		for _, to := range s.pods {
			for _, a := range to.Addresses() {
				at := join(a, port)
				add("pod "+family(a), about(to), echo.Question{Address: at})
				add("pod "+family(a)+", large", about(to), echo.Question{Address: at, Size: large})
				add("pod "+family(a)+", UDP", about(to), echo.Question{Address: at, UDP: true, Size: packet})
			}
		}
		for _, a := range s.service.ClusterIPs() {
			add("Service "+family(a), "service echo", echo.Question{Address: join(a, 80)})
		}
		add("DNS", "service echo", echo.Question{Address: "echo." + s.namespace + ".svc:80"})
		for _, n := range s.nodes {
			for _, a := range n.Addresses() {
				if serves(s.service, a) {
					add("node port "+family(a), "node "+n.Name, echo.Question{Address: join(a, s.service.Spec.Ports[0].NodePort)})
				}
			}
		}
		for _, a := range s.edge {
			add("Ingress "+family(a), "service echo", echo.Question{Address: join(a, 80), Host: host})
		}
	}
	for _, a := range s.guarded.Addresses() {
		at := join(a, port)
		list = append(list, Check{Kind: "policy, allowed", From: about(s.friend), To: about(s.guarded), Question: echo.Question{Address: at}, pod: s.friend.Name})
		for _, from := range s.pods {
			list = append(list, Check{Kind: "policy, denied", From: about(from), To: about(s.guarded), Denied: true, Question: echo.Question{Address: at}})
		}
	}
	return list
}

// serves reports whether the Service has an address of a's family: its node port
// has those then.
func serves(s object.Service, a netip.Addr) bool {
	for _, c := range s.ClusterIPs() {
		if c.Is4() == a.Is4() {
			return len(s.Spec.Ports) > 0
		}
	}
	return false
}

func about(p object.Pod) string { return fmt.Sprintf("pod %s on %s", p.Name, p.Spec.NodeName) }

func join(a netip.Addr, port uint16) string {
	return net.JoinHostPort(a.String(), strconv.Itoa(int(port)))
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// judge enters an answer.
func (c *Check) judge(a echo.Answer) {
	c.asked = true
	switch {
	case c.Denied && a.Problem == "":
		c.Problem = "it is answered, and a policy denies it"
	case c.Denied:
		c.Problem = ""
	default:
		c.Problem = a.Problem
	}
}
