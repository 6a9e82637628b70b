package daemon

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/overlay"
	"poplin.dev/poplin/pkg/cluster"
)

// TestWhatUsersAreTold: each thing that a user must know is said about the
// object it concerns, and nothing where all is well.
func TestWhatUsersAreTold(t *testing.T) {
	ranges := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}
	self := cluster.Self{Name: "worker-1", UID: "u1", PodCIDRs: ranges}
	fine := overlay.State{Self: self, InPlace: true}
	with := func(change func(*overlay.State)) overlay.State { s := fine; change(&s); return s }
	fabric := func(o overlay.State) []sentence { return aboutFabric(o, nil, time.Hour) }
	none := with(func(o *overlay.State) { o.Self.PodCIDRs = nil })
	for _, tt := range []struct {
		name string
		got  []sentence
		want []string // name/UID reason
	}{
		{"all is well", fabric(fine), nil},
		{"before the Node is known", fabric(overlay.State{}), nil},
		{"a new Node has no range", aboutFabric(none, nil, time.Second), nil},
		{"nor has it later", fabric(none), []string{"worker-1/u1 PodCIDRMissing"}},
		{"contested", fabric(with(func(o *overlay.State) { o.Contested = true })), []string{"worker-1/u1 NodeRefused"}},
		{"strays", fabric(with(func(o *overlay.State) { o.Strays = []netip.Addr{{}} })), []string{"worker-1/u1 PodCIDRChanged"}},
		{"another firewall", fabric(with(func(o *overlay.State) { o.Blocking = []string{"ip filter FORWARD"} })), []string{"worker-1/u1 ForeignFirewall"}},
		{"large MTU", fabric(with(func(o *overlay.State) { o.LargePods = 3 })), []string{"worker-1/u1 PodMTUTooLarge"}},
		{"checksums", fabric(with(func(o *overlay.State) { o.Checksums.Faulty = true })), []string{"worker-1/u1 ChecksumFault"}},
		{"refused", fabric(with(func(o *overlay.State) { o.Refused = []overlay.Refusal{{Node: "b"}, {Node: "a"}} })), []string{"b/b PeerRefused", "a/a PeerRefused"}},
		{"not understood", aboutFabric(fine, map[string]string{"b": "spec", "a": "spec"}, 0), []string{"a/a PeerRefused", "b/b PeerRefused"}},
		{"conflist alone", aboutConflist(self, conflist.State{}), nil},
		{"conflist shadowed", aboutConflist(self, conflist.State{Preferred: []string{"00-x.conf"}}), []string{"worker-1/u1 ConflistShadowed"}},
		{"configuration", aboutConfig(self, nil), nil},
		{"bad configuration", aboutConfig(self, errors.New("x")), []string{"worker-1/u1 ConfigInvalid"}},
	} {
		var got []string
		for _, s := range tt.got {
			if s.about.Name != "" {
				got = append(got, s.about.Name+"/"+s.about.UID+" "+s.reason.String())
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}
