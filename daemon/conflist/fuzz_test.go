package conflist

import (
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/libcni"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/config"
	"poplin.dev/poplin/plugins/poplin/conf"
)

// FuzzCompile: whatever configuration is accepted and whatever ranges a Node
// may have, a runtime and the plugin can read the conflist.
func FuzzCompile(f *testing.F) {
	const head = "apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\n"
	f.Add(head, "10.244.1.0/24", "fd00:10:244:1::/64", 1450)
	f.Add(head+"cni: {name: cbr0, capabilities: {ips: true}, plugins: [{type: bandwidth, x: [1, {}]}]}\n", "10.244.1.0/24", "", 1500)
	f.Add(head+"cni: {plugins: [{type: \"\\u0000\", name: other, cniVersion: 9}]}\n", "", "fd00::/64", 1280)
	f.Fuzz(func(t *testing.T, text, first, second string, mtu int) {
		c, err := config.Parse([]byte(text))
		if err != nil {
			return
		}
		n := Node{MTU: mtu}
		for _, s := range []string{first, second} {
			if p, err := netip.ParsePrefix(s); err == nil {
				n.PodCIDRs = append(n.PodCIDRs, p)
			}
		}
		if mtu < 1280 || mtu > 65535 || len(n.PodCIDRs) == 0 || cluster.ValidatePodCIDRs(n.PodCIDRs) != nil {
			return
		}
		out, err := compile(Config{Name: c.CNI.Name, Capabilities: c.CNI.Capabilities, Plugins: c.CNI.Plugins}, n)
		if err != nil {
			t.Fatal(err)
		}
		list, err := libcni.NetworkConfFromBytes(out)
		if err != nil {
			t.Fatalf("a runtime cannot read it: %v\n%s", err, out)
		}
		if list.Name != c.CNI.Name || len(list.Plugins) != 1+len(c.CNI.Plugins) || list.Plugins[0].Network.Type != "poplin" {
			t.Fatalf("a runtime reads %s with %d plugins\n%s", list.Name, len(list.Plugins), out)
		}
		ours, err := libcni.InjectConf(list.Plugins[0], map[string]any{"name": list.Name, "cniVersion": list.CNIVersion})
		if err != nil {
			t.Fatal(err)
		}
		read, err := conf.Parse(ours.Bytes, "")
		if err != nil || read.MTU != mtu || read.IPAM != conf.HostLocal {
			t.Fatalf("the plugin reads %+v, %v\n%s", read, err, ours.Bytes)
		}
	})
}
