package facts

import (
	"encoding/json"
	"net/netip"
	"reflect"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

// What a node says is read as it was said.
func TestJSON(t *testing.T) {
	services := vip.New()
	front := vip.Front{Addr: addr("10.96.0.1"), Proto: service.UDP, Port: 53}
	services.Frontends[front] = vip.To(vip.FirstGroup, 1).Sticky()
	services.Endpoints[vip.Slot{Group: vip.FirstGroup, Index: 0}] = netip.MustParseAddrPort("[fd00:10:244::5]:53")
	services.Sources[vip.Source{Front: front, Clients: netip.MustParsePrefix("192.0.2.0/24")}] = struct{}{}
	services.Hairpins[addr("fd00:10:244::5")] = struct{}{}
	policy := permit.New()
	policy.Egress[permit.Pair{Pod: addr("10.244.0.5"), Class: 70000}] = permit.FirstPorts
	policy.Ports[permit.Span{Ports: permit.Ports(permit.FirstPorts).WithOthers(), Proto: service.TCP, First: 80, Last: 90}] = struct{}{}
	policy.Ranges[permit.Range{First: addr("fd00::"), Last: addr("fd00::ff")}] = 3
	n := Node{
		Version: Version, Name: "n1", Missing: map[string]string{"pods": "why"},
		Network: &Network{Decisions: []Decision{{Dst: addr("10.244.1.5"), Dev: "poplin-vx", Via: addr("10.244.1.0")}}},
		Rules: &Rules{
			Services: Services{Program: services}, Policy: Policy{Program: policy, Wrong: []string{"chain forward is missing"}},
			Foreign: []Chain{{Family: "ip", Table: "filter", Name: "FORWARD", Hook: "forward", Drops: true}},
		},
		Flows: &Flows{Known: []Known{{Proto: service.UDP, To: netip.MustParseAddrPort("10.244.1.5:53")}}},
	}
	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	var back Node
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	if !reflect.DeepEqual(n, back) {
		t.Errorf("said\n%+v\nread\n%+v\nof %s", n, back, text)
	}
}

func TestFlow(t *testing.T) {
	for _, text := range []string{"tcp,10.244.1.5,10.96.0.1:443", "udp,,[fd00::1]:53"} {
		var f Flow
		if err := f.UnmarshalText([]byte(text)); err != nil || f.String() != text {
			t.Errorf("%s: %v, %v", text, f, err)
		}
	}
	for _, text := range []string{"", "tcp,,", "icmp,,10.0.0.1:1", "tcp,x,10.0.0.1:1", "tcp,,10.0.0.1"} {
		var f Flow
		if err := f.UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is no flow", text)
		}
	}
}

// What concerns none of the addresses stays on the node.
func TestAbout(t *testing.T) {
	p := vip.New()
	for i, a := range []string{"10.96.0.1", "10.96.0.2"} {
		group := uint32(vip.FirstGroup + i)
		p.Frontends[vip.Front{Addr: addr(a), Proto: service.TCP, Port: 80}] = vip.To(group, 1)
		p.Endpoints[vip.Slot{Group: group}] = netip.AddrPortFrom(addr("10.244.0.5"), uint16(80+i))
		p.Addresses[addr(a)] = struct{}{}
	}
	if got := p.About([]netip.Addr{addr("10.96.0.2")}); got.Len() != 3 || got.Endpoints[vip.Slot{Group: vip.FirstGroup + 1}].Port() != 81 {
		t.Errorf("got\n%s", got)
	}
	q := permit.New()
	for _, pod := range []string{"10.244.0.5", "10.244.0.6"} {
		q.Receivers[addr(pod)] = struct{}{}
		q.Ingress[permit.Pair{Pod: addr(pod), Class: 1}] = permit.FirstPorts
		q.Ingress[permit.Pair{Pod: addr(pod), Class: 2}] = permit.FirstPorts + 1
	}
	q.Peers[addr("10.244.1.1")], q.Peers[addr("10.244.1.2")] = 1, 2
	q.Ports[permit.Span{Ports: permit.FirstPorts, Proto: service.TCP, First: 1, Last: 1}] = struct{}{}
	q.Ports[permit.Span{Ports: permit.FirstPorts + 1, Proto: service.TCP, First: 2, Last: 2}] = struct{}{}
	got := q.About([]netip.Addr{addr("10.244.0.6"), addr("10.244.1.2")})
	if len(got.Receivers) != 1 || len(got.Ingress) != 1 || len(got.Peers) != 1 || len(got.Ports) != 1 {
		t.Errorf("got\n%s", got)
	}
}

// Rules of others, as packets meet them.
func TestJudge(t *testing.T) {
	to := netip.MustParseAddrPort("10.244.1.5:80")
	p := Packet{Flow: Flow{Src: addr("10.244.0.5"), To: to, Proto: service.TCP}, In: "plw1", Out: "poplin-vx"}
	prefix := func(s string, not bool) *AddrMatch { return &AddrMatch{Not: not, Prefix: netip.MustParsePrefix(s)} }
	drop := Rule{Handle: 7, Verdict: "drop"}
	banned := []AddrRange{{addr("10.244.0.1"), addr("10.244.0.9")}, {addr("fd00::1"), addr("fd00::9")}}
	ports := []NumMatch{{Low: 53, High: 53}, {Low: 80, High: 90}}
	for name, row := range map[string]struct {
		rules  []Rule
		policy bool
		want   Fate
	}{
		"nothing":                     {nil, false, Passes},
		"policy":                      {nil, true, Dropped},
		"accepted before the policy":  {[]Rule{{Src: prefix("10.244.0.0/16", false), Verdict: "accept"}}, true, Passes},
		"another destination":         {[]Rule{{Dst: prefix("10.9.0.0/16", false), Verdict: "drop"}}, false, Passes},
		"all but one destination":     {[]Rule{{Dst: prefix("10.9.0.0/16", true), Verdict: "reject"}}, false, Dropped},
		"its port":                    {[]Rule{{Dport: &NumMatch{Low: 80, High: 90}, Proto: &NumMatch{Low: 6, High: 6}, Verdict: "drop"}}, false, Dropped},
		"another protocol":            {[]Rule{{Proto: &NumMatch{Low: 17, High: 17}, Verdict: "drop"}}, false, Passes},
		"its device":                  {[]Rule{{In: &NameMatch{Name: "plw", Prefix: true}, Verdict: "drop"}}, false, Dropped},
		"another device":              {[]Rule{{Out: &NameMatch{Name: "eth0"}, Verdict: "drop"}}, false, Passes},
		"connections that exist":      {[]Rule{{NotNew: true, Verdict: "drop"}}, false, Passes},
		"the other family":            {[]Rule{{Family: 6, Verdict: "drop"}}, false, Passes},
		"not understood":              {[]Rule{{Obscure: []string{"limit"}, Verdict: "drop"}}, false, Perhaps},
		"accept that is obscure":      {[]Rule{{Obscure: []string{"limit"}, Verdict: "accept"}}, true, Perhaps},
		"in a chain it jumps to":      {[]Rule{{Verdict: "jump", To: "other"}}, false, Dropped},
		"in a chain it may jump to":   {[]Rule{{Obscure: []string{"x"}, Verdict: "jump", To: "other"}}, false, Perhaps},
		"accepted before the jump":    {[]Rule{{Verdict: "accept"}, {Verdict: "jump", To: "other"}}, false, Passes},
		"returned before the jump":    {[]Rule{{Verdict: "return"}, {Verdict: "jump", To: "other"}}, true, Dropped},
		"a jump in a circle ends":     {[]Rule{{Verdict: "jump", To: "base"}}, false, Passes},
		"answers from the port":       {[]Rule{{Sport: &NumMatch{Low: 80, High: 80}, Verdict: "drop"}}, false, Passes},
		"goto does not come back":     {[]Rule{{Verdict: "goto", To: "empty"}, drop}, false, Passes},
		"jump does come back":         {[]Rule{{Verdict: "jump", To: "empty"}, drop}, false, Dropped},
		"in a set of addresses":       {[]Rule{{Sets: []SetMatch{{Field: "saddr", Addrs: banned}}, Verdict: "drop"}}, false, Dropped},
		"the other address is in it":  {[]Rule{{Sets: []SetMatch{{Field: "daddr", Addrs: banned}}, Verdict: "drop"}}, false, Passes},
		"in no set of ports":          {[]Rule{{Sets: []SetMatch{{Field: "dport", Not: true, Numbers: ports}}, Verdict: "drop"}}, false, Passes},
		"in a set of ports":           {[]Rule{{Sets: []SetMatch{{Field: "dport", Numbers: ports}}, Verdict: "drop"}}, false, Dropped},
		"answers from ports of a set": {[]Rule{{Sets: []SetMatch{{Field: "sport", Numbers: ports}}, Verdict: "drop"}}, false, Passes},
		"in an empty set":             {[]Rule{{Sets: []SetMatch{{Field: "protocol"}}, Verdict: "drop"}}, false, Passes},
		"accepted on obscure grounds": {[]Rule{{Obscure: []string{"x"}, Verdict: "accept"}, drop}, false, Perhaps},
	} {
		base := Chain{Family: "ip", Table: "filter", Name: "base", Hook: "forward", Drops: row.policy, Rules: row.rules}
		chains := []Chain{base, {Family: "ip", Table: "filter", Name: "other", Rules: []Rule{drop}}, {Family: "ip", Table: "filter", Name: "empty"}}
		if got, why := Judge(chains, base, p); got != row.want || (got == Passes) != (why == "") {
			t.Errorf("%s: %d, %q; want %d", name, got, why, row.want)
		}
	}
	// A chain at a device's hook sees packets of its devices only.
	for device, want := range map[string]Fate{"plw1": Dropped, "eth0": Passes} {
		base := Chain{Family: "netdev", Table: "site", Name: "in", Hook: Ingress, Devices: []string{device}, Rules: []Rule{drop}}
		if got, why := Judge([]Chain{base}, base, p); got != want {
			t.Errorf("device %s: %d, %q; want %d", device, got, why, want)
		}
	}
	// A table of one family sees no packet of the other.
	six := p
	six.Src, six.To = addr("fd00::5"), netip.MustParseAddrPort("[fd00:1::5]:80")
	for family, row := range map[string]struct{ four, six Fate }{"ip": {Dropped, Passes}, "ip6": {Passes, Dropped}, "inet": {Dropped, Dropped}} {
		base := Chain{Family: family, Table: "filter", Name: "FORWARD", Hook: "forward", Drops: true}
		for packet, want := range map[Packet]Fate{p: row.four, six: row.six} {
			if got, why := Judge([]Chain{base}, base, packet); got != want {
				t.Errorf("family %s, to %s: %d, %q; want %d", family, packet.To, got, why, want)
			}
		}
	}
}
