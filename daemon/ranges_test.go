package daemon_test

import (
	"encoding/json"
	"net"
	"strings"

	"github.com/vishvananda/netlink"
)

// events are the reasons and messages that were told so far.
func (m *machine) events() string {
	var all strings.Builder
	for _, o := range m.api.List("/api/v1/namespaces/default/events") {
		text, _ := json.Marshal([]any{o["involvedObject"].(object)["name"], o["reason"], o["message"]})
		all.Write(append(text, '\n'))
	}
	return all.String()
}

// ranges changes who has which pod range: users are told by Events, no pod may
// start while it is wrong, and all goes on when it is not.
func (m *machine) ranges() {
	t := m.t
	waits := func(what string) bool {
		code, body := get("http://127.0.0.1:9411/readyz")
		return code == 503 && strings.Contains(body, what)
	}
	// An older node has the range, and one that no node can have comes along.
	older := object{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": object{"name": "worker-3", "creationTimestamp": "2020-01-01T00:00:00Z"},
		"spec": object{"podCIDRs": []string{"10.244.1.0/24"}, "mtu": 1450, "vtep": object{"address": "172.30.0.13", "mac": "02:00:00:00:00:03"}},
	}
	m.api.Put(networks, older)
	m.api.Put(networks, object{"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": object{"name": "worker-4"}, "spec": object{"mtu": "many"}})
	const contested = "10.244.1.0/24 overlaps 10.244.1.0/24 of node worker-3"
	m.until("the range is contested", func() bool { return waits(contested) && strings.Contains(m.readyFile(), contested) })
	m.until("users know", func() bool {
		e := m.events()
		return strings.Contains(e, `["worker-1","NodeRefused",`) && strings.Contains(e, `["worker-3","PeerRefused",`) &&
			strings.Contains(e, `["worker-4","PeerRefused","other nodes do not send to this one: its NodeNetwork is not understood`)
	})
	m.checkKernel()
	m.api.Delete(networks + "/worker-3")
	m.api.Delete(networks + "/worker-4")
	m.until("it is solved", func() bool { return m.report().Ready && m.readyFile() == "" })

	// The Node is made anew, with another range, while a pod has an address of
	// the former.
	far, err := netlink.LinkByName("far")
	if err != nil {
		t.Fatal(err)
	}
	pod := &netlink.Route{LinkIndex: far.Attrs().Index, Dst: &net.IPNet{IP: net.IPv4(10, 244, 1, 7).To4(), Mask: net.CIDRMask(32, 32)}, Protocol: 157, Scope: netlink.SCOPE_LINK}
	if err := netlink.RouteAdd(pod); err != nil {
		t.Fatal(err)
	}
	m.api.Put(nodes, m.node("10.244.5.0/24"))
	m.until("the stray pod keeps the node from being ready", func() bool { return waits("10.244.1.7 among them") })
	m.until("new pods get addresses of the new range", func() bool {
		return strings.Contains(m.conflist(), "10.244.5.0/24") && !strings.Contains(m.conflist(), "10.244.1.0/24") && m.readyFile() == ""
	})
	m.until("users know", func() bool { return strings.Contains(m.events(), `["worker-1","PodCIDRChanged",`) })
	if err := netlink.RouteDel(pod); err != nil {
		t.Fatal(err)
	}
	m.api.Put(nodes, m.node("10.244.1.0/24", "fd00:10:244:1::/64"))
	m.until("it is ready", func() bool { return m.report().Ready && strings.Contains(m.conflist(), "10.244.1.0/24") })
}
