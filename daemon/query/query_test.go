package query

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	permitter "poplin.dev/poplin/pkg/apply/permit"
	services "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

func ip(t *testing.T, line string) {
	t.Helper()
	if out, err := exec.Command(need.Program(t, "ip", "iproute2"), strings.Fields(line)...).CombinedOutput(); err != nil {
		t.Fatalf("ip %s: %v: %s", line, err, out)
	}
}

// A node with a pod, an overlay device, Services, policies and somebody
// else's firewall says all of it; the answer to a question has what concerns
// it.
func TestRun(t *testing.T) {
	space.Enter(t)
	const name = "query-test-pod"
	_ = exec.Command("ip", "netns", "del", name).Run() // of an aborted run
	ip(t, "netns add "+name)
	t.Cleanup(func() { _ = exec.Command("ip", "netns", "del", name).Run() })
	for _, line := range []string{
		"link set lo up",
		"link add under type veth peer name far", "link set far up", "addr add 192.0.2.1/24 dev under", "link set under up",
		"link add poplin-vx type vxlan id 1 dstport 8472 local 192.0.2.1 dev under nolearning", "addr add 10.244.0.0/32 dev poplin-vx", "link set poplin-vx up",
		"route add 10.244.1.0/24 via 10.244.1.0 dev poplin-vx onlink proto 157",
		"neigh add 10.244.1.0 lladdr 02:00:00:00:00:01 dev poplin-vx nud permanent",
		"link add plwpod type veth peer name eth0 netns " + name, "link set plwpod group 28780 up", "route add 10.244.0.5/32 dev plwpod proto 157",
		"link add " + plan.HostName("c1", "eth0") + " group 28780 type veth peer name routeless",
		"link add plwother type veth peer name others", "link set plwother group 28780 up", "route add 10.244.0.6/32 dev plwother proto 157",
		"link set " + plan.HostName("c1", "eth0") + " up", "-n " + name + " addr add 10.244.0.5/32 dev eth0", "-n " + name + " link set eth0 up",
	} {
		ip(t, line)
	}
	if out, err := exec.Command("bridge", "fdb", "add", "02:00:00:00:00:01", "dev", "poplin-vx", "dst", "192.0.2.2").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.DiscardHandler)
	p := vip.New()
	for i := range 3 {
		p.Frontends[vip.Front{Addr: netip.AddrFrom4([4]byte{10, 96, 0, byte(i)}), Proto: service.TCP, Port: 80}] = vip.To(uint32(vip.FirstGroup+i), 1)
		p.Endpoints[vip.Slot{Group: uint32(vip.FirstGroup + i)}] = netip.MustParseAddrPort("10.244.1.5:80")
	}
	table, err := services.Open(services.Config{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	if _, err := table.Set(p); err != nil {
		t.Fatal(err)
	}
	policies, err := permitter.Open(permitter.Config{Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { policies.Close() })
	q := permit.New()
	q.Senders[netip.MustParseAddr("10.244.0.5")] = struct{}{}
	if _, err := policies.Set(q); err != nil {
		t.Fatal(err)
	}
	space.Nft(t, "add table inet other")
	space.Nft(t, "add chain inet other f { type filter hook forward priority 0; policy drop; }")
	space.Nft(t, "add set inet other banned { type ipv4_addr; flags interval; elements = { 10.1.0.0/16, 10.2.0.0/16, 192.0.2.7, 240.0.0.0/4 }; }")
	space.Nft(t, "add set inet other banned6 { type ipv6_addr; elements = { fd00::1 }; }")
	space.Nft(t, "add table netdev site")
	space.Nft(t, "add chain netdev site one { type filter hook ingress device plwpod priority 0; }")
	space.Nft(t, "add chain netdev site two { type filter hook ingress devices = { plwpod, passed } priority 0; }")
	space.Nft(t, "add rule netdev site one ip saddr 10.0.0.0/8 udp dport 8472 drop")
	for _, rule := range []string{
		"ip saddr 10.244.0.0/16 tcp dport 80-90 drop", "iifname plw* ip6 daddr fd00::/64 accept",
		"ct state established,related accept", "ct state new oifname != eth0 udp dport 53 counter reject", "meta mark 5 drop",
		"ip saddr @banned drop", "ip6 daddr @banned6 drop", "tcp dport != { 22, 80-90, 443 } drop", "meta l4proto { tcp, udp } accept", "ip saddr . tcp dport { 192.0.2.1 . 80 } drop",
	} {
		space.Nft(t, "add rule inet other f "+rule)
	}
	// What comes in from the pod is marked, and goes another way by that.
	ip(t, "link add by-pass type veth peer name passed")
	ip(t, "link set passed up")
	ip(t, "link set by-pass up")
	ip(t, "route add default dev by-pass table 99")
	ip(t, "rule add pref 100 fwmark 6 lookup 99")
	space.Nft(t, "add chain inet other p { type filter hook prerouting priority -310; }")
	for _, rule := range []string{"iifname plwpod meta mark set 4", "ip daddr 10.96.0.0/16 meta mark set meta mark or 2", "ip saddr 10.244.0.5 ct zone set 7"} {
		space.Nft(t, "add rule inet other p "+rule)
	}

	places := Places{StateDir: t.TempDir(), CNICache: filepath.Join(t.TempDir(), "results"), Socket: "/nowhere", Inspect: true}
	places.Config = filepath.Join(t.TempDir(), "config.yaml")
	conflist := filepath.Join(t.TempDir(), "10-poplin.conflist")
	write := func(path, text string) {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	data := t.TempDir()
	write(places.Config, "apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\ncni: {confDir: "+filepath.Dir(conflist)+"}\n")
	write(conflist, fmt.Sprintf(`{"cniVersion":"1.1.0","name":"poplin","plugins":[{"type":"poplin","ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.244.0.0/24"}]]}}]}`, data))
	write(filepath.Join(data, "poplin", "10.244.0.5"), "c1\r\neth0")
	write(filepath.Join(places.CNICache, "poplin-c1-eth0"), `{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","networkName":"poplin","netns":"/var/run/netns/`+name+`","cniArgs":[["K8S_POD_NAMESPACE","blue"],["K8S_POD_NAME","web"]]}`)

	flow := facts.Flow{Src: netip.MustParseAddr("10.244.0.5"), To: netip.MustParseAddrPort("10.244.1.5:80"), Proto: service.TCP}
	front := flow
	front.To = netip.MustParseAddrPort("10.96.0.1:80")
	n := Run(context.Background(), places, "n1", facts.Question{Kinds: facts.Kinds(), Flows: []facts.Flow{flow, front}})

	text, err := json.Marshal(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d bytes: %s", len(text), text)
	if len(n.Missing) > 0 {
		t.Errorf("missing: %v", n.Missing)
	}
	if n.Daemon == nil || n.Daemon.Running || n.Daemon.Problem == "" || len(n.Daemon.Ranges) != 1 || n.Daemon.Ranges[0].Taken != 1 {
		t.Errorf("daemon: %+v", n.Daemon)
	}
	d, _ := n.Network.Decision(flow.Src, flow.To.Addr())
	if d.In != "plwpod" || d.Dev != "poplin-vx" || d.Via != netip.MustParseAddr("10.244.1.0") {
		t.Errorf("decision: %+v", d)
	}
	if d.Mark != 4 {
		t.Errorf("mark: %d", d.Mark)
	}
	if d, _ := n.Network.Decision(front.Src, front.To.Addr()); d.Mark != 6 || d.Dev != "by-pass" {
		t.Errorf("decision by mark: %+v", d)
	}
	if l, _ := facts.Label(n.Rules.Foreign, "prerouting", -200, facts.Packet{Flow: flow}); l.Zone != 7 {
		t.Errorf("labels: %+v", l)
	}
	if l, found := n.Network.Link(plan.HostName("c1", "eth0")); !found || l.Group != 28780 {
		t.Error("the pod's link is not told, as no route leads there")
	}
	back, _ := n.Network.Decision(flow.To.Addr(), flow.Src)
	if back.In != "poplin-vx" || back.Dev != "plwpod" {
		t.Errorf("decision back: %+v", back)
	}
	if _, here := n.Network.Link("plwother"); here {
		t.Error("another pod's link is in the answer")
	}
	if l, ok := n.Network.Link("poplin-vx"); !ok || l.VXLAN == nil || l.VXLAN.VNI != 1 || l.VXLAN.Port != 8472 || l.VXLAN.Local != netip.MustParseAddr("192.0.2.1") || !l.Up {
		t.Errorf("overlay device: %+v", l)
	}
	if want := (facts.Neigh{Addr: netip.MustParseAddr("10.244.1.0"), Dev: "poplin-vx", MAC: "02:00:00:00:00:01", State: "permanent"}); !slices.Contains(n.Network.Neighs, want) {
		t.Errorf("neighbours: %+v", n.Network.Neighs)
	}
	if want := (facts.Forward{MAC: "02:00:00:00:00:01", Dst: netip.MustParseAddr("192.0.2.2")}); !slices.Contains(n.Network.FDB, want) {
		t.Errorf("forwarding entries: %+v", n.Network.FDB)
	}
	if s := n.Rules.Services; len(s.Frontends) != 1 || len(s.Endpoints) != 1 || len(s.Wrong) > 0 {
		t.Errorf("services:\n%s%v", s.Program, s.Wrong)
	}
	if s := n.Rules.Policy; len(s.Senders) != 1 || len(s.Wrong) > 0 {
		t.Errorf("policy:\n%s%v", s.Program, s.Wrong)
	}
	if w := n.Rules.Overlay.Wrong; len(w) != 1 || w[0] != "table inet poplin does not exist" {
		t.Errorf("overlay: %v", w)
	}
	want := []string{
		"saddr 10.244.0.0/16 protocol 6 dport 80-90 drop", "iifname plw* daddr fd00::/64 accept", "accept",
		"oifname != eth0 protocol 17 dport 53 reject", "(an unknown field) drop",
		"saddr @banned drop", "daddr @banned6 drop", "protocol 6 dport != { ... } drop", "protocol { ... } accept", "protocol 6 (in set __set%d) drop",
	}
	var got []string
	for _, c := range n.Rules.Foreign {
		if c.Table == "other" && c.Name == "f" {
			for _, r := range c.Rules {
				got = append(got, r.String())
			}
			if !c.Drops || c.Hook != "forward" || !c.Rules[2].NotNew || c.Rules[3].NotNew || c.Rules[1].Family != 6 {
				t.Errorf("chain: %+v", c)
			}
		}
	}
	for i := range got {
		got[i] = regexp.MustCompile(`__set\d+`).ReplaceAllString(got[i], "__set%d")
	}
	if !slices.Equal(got, want) {
		t.Errorf("rules\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for _, c := range n.Rules.Foreign {
		switch c.Name {
		case "f":
			if got := fmt.Sprint(c.Rules[5].Sets[0].Addrs, c.Rules[6].Sets[0].Addrs, c.Rules[7].Sets[0].Numbers); got != "[{10.1.0.0 10.1.255.255} {10.2.0.0 10.2.255.255} {192.0.2.7 192.0.2.7} {240.0.0.0 255.255.255.255}] [{fd00::1 fd00::1}] [{false 22 22} {false 80 90} {false 443 443}]" {
				t.Errorf("sets: %s", got)
			}
		case "one":
			if c.Hook != facts.Ingress || !slices.Equal(c.Devices, []string{"plwpod"}) || c.Rules[0].String() != "saddr 10.0.0.0/8 protocol 17 dport 8472 drop" {
				t.Errorf("chain of a device: %+v", c)
			}
		case "two":
			if slices.Sort(c.Devices); !slices.Equal(c.Devices, []string{"passed", "plwpod"}) {
				t.Errorf("chain of two devices: %+v", c)
			}
		}
	}
	if len(n.Pods) != 1 || n.Pods[0].Name != "blue/web" || n.Pods[0].Inside == nil {
		t.Fatalf("pods: %+v", n.Pods)
	}
	if l, ok := n.Pods[0].Inside.Holder(flow.Src); !ok || l.Name != "eth0" || !l.Up {
		t.Errorf("inside: %+v", n.Pods[0].Inside)
	}

	// Without leave, nobody looks into pods.
	places.Inspect = false
	n = Run(context.Background(), places, "n1", facts.Question{Kinds: []facts.Kind{facts.OfPods}})
	if len(n.Pods) != 1 || n.Pods[0].Inside != nil || !strings.Contains(n.Pods[0].Hidden, "needs node access") || n.Network != nil {
		t.Errorf("without leave: %+v", n)
	}
}

// TestCluster: of a daemon that does not run, its file says which nodes there are,
// and what it does not say has a reason.
func TestCluster(t *testing.T) {
	dir := t.TempDir()
	file := `{"Version":1,"Saved":"2026-01-02T03:04:05Z","Self":{"Name":"n1","UID":"u"},"Nodes":[{"Name":"n1"},{"Name":"n2"}]}`
	if err := os.WriteFile(filepath.Join(dir, "nodes.json"), []byte(file), 0o600); err != nil {
		t.Fatal(err)
	}
	places := Places{Socket: filepath.Join(dir, "none.sock"), StateDir: dir}
	n := Run(t.Context(), places, "n1", facts.Question{Kinds: []facts.Kind{facts.OfCluster}})
	if c := n.Cluster; c == nil || len(c.Nodes) != 2 || c.Self.Name != "n1" || c.Since.Year() != 2026 || c.Missing["services"] == "" || c.Missing["policy"] == "" {
		t.Errorf("%+v, missing %v", c, n.Missing)
	}
	if n = Run(t.Context(), places, "n2", facts.Question{Kinds: []facts.Kind{facts.OfCluster}}); len(n.Cluster.Nodes) != 0 || n.Missing[string(facts.OfCluster)] == "" {
		t.Errorf("of another node's file: %+v, missing %v", n.Cluster, n.Missing)
	}
}
