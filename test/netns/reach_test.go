package netns

import (
	"testing"
)

// TestReach: every pod reaches every other one under its own address, in
// each combination of families, and the underlay carries VXLAN only.
func TestReach(t *testing.T) {
	for name, p := range map[string]plan{
		"IPv4":             ipv4,
		"IPv6":             ipv6,
		"dual":             dual,
		"dual over IPv6":   {pods: []string{"4", "6"}, underlay: []string{"6", "4"}},
		"IPv4 over IPv6":   {pods: []string{"4"}, underlay: []string{"6"}},
		"IPv6 over IPv4":   {pods: []string{"6"}, underlay: []string{"4"}},
		"dual, IPv6 first": {pods: []string{"6", "4"}, underlay: []string{"4", "6"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLab(t, p, 3)
			watch := newCapture(t, l)
			l.startAll(t)
			var pods []*pod
			for _, n := range l.nodes {
				pods = append(pods, n.addPod(t), n.addPod(t))
			}
			for _, a := range pods {
				for _, b := range pods {
					if a != b {
						reach(t, a, b)
					}
				}
			}
			for i, from := range pods[0].addrs {
				if err := push(pods[0].Space, from, pods[5].addrs[i]); err != nil {
					t.Error(err)
				}
			}
			watch.onlyVXLAN(t)
		})
	}
}
