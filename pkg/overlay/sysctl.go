package overlay

import "poplin.dev/poplin/pkg/program"

// PodSetting is a sysctl of the node's end of every pod's link.
type PodSetting struct {
	Family, Name string
	Value        int
}

// PodSettings are what the CNI plugin gives those links, and what keeps a
// forged redirect or router advertisement from configuring the node.
func PodSettings() []PodSetting {
	return []PodSetting{
		{"ipv4", "forwarding", 1},
		{"ipv4", "rp_filter", 2},
		{"ipv4", "send_redirects", 0},
		{"ipv4", "accept_redirects", 0},
		{"ipv6", "accept_ra", 0},
		{"ipv6", "accept_redirects", 0},
		{"ipv6", "autoconf", 0},
	}
}

// sysctls makes the node forward packets of the families its pods have, and
// the overlay device take its configuration from nobody.
func sysctls(s Self) []program.Sysctl {
	var list []program.Sysctl
	if !s.NoTunnel {
		list = linkSysctls()
	}
	for _, p := range s.PodCIDRs {
		if p.Addr().Is4() && len(s.Direct) > 0 {
			// Pods' packets may come back by the underlay while the route
			// to their source leads into the tunnel.
			list = append(list, program.Sysctl{Key: "ipv4/conf/" + s.Underlay.Link + "/rp_filter", Value: "2", Shared: true})
		}
		if p.Addr().Is4() {
			list = append(list, program.Sysctl{Key: "ipv4/ip_forward", Value: "1", Shared: true})
			continue
		}
		// A forwarding node ignores router advertisements where accept_ra
		// is 1. A node whose own address or default route comes from them
		// (SLAAC) would fall off the network when the route expires, so its
		// underlay device gets accept_ra 2 at the moment at which Poplin
		// turns forwarding on; what an administrator chose before stays.
		conf := "ipv6/conf/" + s.Underlay.Link + "/"
		list = append(list,
			program.Sysctl{Key: conf + "accept_ra", Value: "2", If: []program.Setting{
				{Key: conf + "accept_ra", Value: "1"},
				{Key: conf + "forwarding", Value: "0"},
			}, Optional: true, Shared: true},
			program.Sysctl{Key: "ipv6/conf/all/forwarding", Value: "1", Shared: true},
		)
	}
	return list
}

// linkSysctls are those of the overlay device, the IPv6 ones also where pods
// have IPv4 only: a forged router advertisement must not configure the node
// (CVE-2020-10749). rp_filter 2 is the loose check: the kernel takes the
// larger of the device's value and that of "all", and many distributions set
// 1 there.
func linkSysctls() []program.Sysctl {
	const v4, v6 = "ipv4/conf/" + Link + "/", "ipv6/conf/" + Link + "/"
	return []program.Sysctl{
		{Key: v4 + "rp_filter", Value: "2"},
		{Key: v4 + "send_redirects", Value: "0"},
		{Key: v4 + "accept_redirects", Value: "0"},
		{Key: v6 + "addr_gen_mode", Value: "1", Optional: true},
		{Key: v6 + "accept_ra", Value: "0", Optional: true},
		{Key: v6 + "accept_redirects", Value: "0", Optional: true},
		{Key: v6 + "autoconf", Value: "0", Optional: true},
	}
}
