package vip

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os/exec"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/apply/table"
	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/test/agree"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

func open(t testing.TB) *Table {
	t.Helper()
	table, err := Open(Config{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

// sample has an element of each kind, of which n says the values.
func sample(n int) vip.Program {
	p := vip.New()
	for i, s := range []string{"10.96.0.1", "fd00:96::1", "10.96.0.2", "fd00:96::2"} {
		f := vip.Front{Addr: netip.MustParseAddr(s), Proto: service.TCP, Port: uint16(80 + n)}
		group := uint32(vip.FirstGroup + i)
		v := vip.To(group, 1+(n+i)%4).Sticky()
		p.Frontends[f] = v.Masqueraded()
		p.Outside[f] = vip.To(group, 1)
		p.Timeouts[f] = uint32(3600 * (1 + n%3))
		p.Fenced[f] = struct{}{}
		p.Addresses[f.Addr] = struct{}{}
		for j := range v.Count() {
			a := netip.MustParseAddrPort(fmt.Sprintf("10.244.%d.%d:8080", i, n%50+j))
			clients := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("198.51.100.7/32")}
			if f.Addr.Is6() {
				a = netip.MustParseAddrPort(fmt.Sprintf("[fd00:244::%d:%d]:8080", i, n%50+j))
				clients = []netip.Prefix{netip.MustParsePrefix("2001:db8::/32"), netip.MustParsePrefix("8000::/1")}
			}
			p.Endpoints[vip.Slot{Group: group, Index: uint32(j)}] = a
			p.Hairpins[a.Addr()] = struct{}{}
			for _, c := range clients {
				p.Sources[vip.Source{Front: f, Clients: c}] = struct{}{}
			}
		}
	}
	p.Frontends[vip.Front{Addr: netip.MustParseAddr("10.96.0.3"), Proto: service.SCTP, Port: 1}] = vip.Refuse
	p.Frontends[vip.Front{Addr: netip.MustParseAddr("10.96.0.4"), Proto: service.UDP, Port: 65535}] = vip.Drop
	for _, r := range [][]string{{"10.96.0.0/16", "fd00:96::/112"}, {"10.96.0.0/17", "10.96.128.0/17"}, {"255.255.255.0/24", "10.96.0.0/16"}}[n%3] {
		p.Ranges[netip.MustParsePrefix(r)] = struct{}{}
	}
	return p
}

// What nft prints is what our programs say, so a person can trust either.
func TestRulesAsNftPrintsThem(t *testing.T) {
	space.Enter(t)
	table := open(t)
	if _, err := table.Set(sample(0)); err != nil {
		t.Fatal(err)
	}
	printed := map[string]bool{}
	for line := range strings.Lines(space.Nft(t, "list", "table", "inet", Name)) {
		line = strings.TrimSpace(strings.ReplaceAll(line, " packets 0 bytes 0", ""))
		printed[strings.ReplaceAll(line, "reject with icmpx port-unreachable", "reject")] = true
	}
	picks := []vip.Pick{0}
	for _, v := range sample(0).Frontends {
		picks = append(picks, v.Pick(), v.Pick().Plain())
	}
	for _, c := range vip.Chains(picks, []uint32{3600}) {
		for _, r := range c.Rules {
			if !printed[r.String()] {
				t.Errorf("chain %s: nft does not print %q", c.Name, r)
			}
		}
	}
	if t.Failed() {
		t.Log(space.Nft(t, "list", "table", "inet", Name))
	}
}

func TestKernelAgreesAfterEveryChange(t *testing.T) {
	space.Enter(t)
	table := open(t)
	agree.AfterEveryChange(t, table, func() error { return table.kernel.Reconnect(nil) }, func(dice *rand.Rand) vip.Program {
		if dice.IntN(10) == 0 {
			return vip.New()
		}
		return sample(dice.IntN(9))
	})
}

// Others flush rulesets, and tables that are not ours to change.
func TestOthersDoNotTakeTheTableAway(t *testing.T) {
	space.Enter(t)
	table := open(t)
	if _, err := table.Set(sample(1)); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(space.Nft(t, "list", "table", "inet", Name), "flags owner") {
		need.Missing(t, need.OwnedTables, "Linux 6.9 and later have them")
	}
	space.Nft(t, "flush", "ruleset")
	if err := exec.Command("nft", "delete", "table", "inet", Name).Run(); err == nil {
		t.Error("another process deleted the table")
	}
	table.Forget()
	if got, err := table.Program(); err != nil || got.String() != sample(1).String() {
		t.Errorf("after a flush by another process the kernel holds\n%s%v", got, err)
	}
	if _, err := table.Set(sample(2)); err != nil {
		t.Error(err)
	}
	// The owner ends, the table stays and is adopted.
	table.Close()
	next := open(t)
	if got, err := next.Program(); err != nil || got.String() != sample(2).String() {
		t.Errorf("the next process finds\n%s%v", got, err)
	}
	if n, err := next.Set(sample(2)); n != 0 || err != nil {
		t.Errorf("and changes %d elements, %v", n, err)
	}
}

// On kernels without owned tables, what others destroy is made again.
func TestAPlainTableIsMadeAgain(t *testing.T) {
	space.Enter(t)
	table, err := Open(Config{Plain: true, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	if _, err := table.Set(sample(1)); err != nil {
		t.Fatal(err)
	}
	for _, harm := range [][]string{
		{"flush", "ruleset"},
		{"flush", "map", "inet", Name, "frontends4"},
		{"flush", "chain", "inet", Name, "pick"},
		{"add", "map", "inet", Name, "stranger", "{ type mark : mark; }"},
	} {
		space.Nft(t, harm...)
		table.Forget() // as a netlink event would have it
		if _, err := table.Set(sample(1)); err != nil {
			t.Fatalf("after %v: %v", harm, err)
		}
		table.Forget()
		if got, err := table.Program(); err != nil || got.String() != sample(1).String() {
			t.Errorf("after %v the kernel holds\n%s%v", harm, got, err)
		}
		if out := space.Nft(t, "list", "chain", "inet", Name, "pick"); !strings.Contains(out, "vmap") {
			t.Errorf("after %v:\n%s", harm, out)
		}
	}
	// A change that comes before the event fails, and says so.
	space.Nft(t, "flush", "ruleset")
	if err := table.Apply(vip.Diff(sample(1), sample(2))); err == nil {
		t.Error("a change of a table that is gone must fail")
	}
	if _, err := table.Set(sample(2)); err != nil {
		t.Error(err)
	}
}

// docs/services.md says how to look one front up.
func TestOneElementCanBeAskedFor(t *testing.T) {
	space.Enter(t)
	table := open(t)
	if _, err := table.Set(sample(0)); err != nil {
		t.Fatal(err)
	}
	if out := space.Nft(t, "get", "element", "inet", Name, "frontends4", "{ 10.96.0.1 . tcp . 80 }"); !strings.Contains(out, ": c004:10") {
		t.Errorf("nft says\n%s", out)
	}
}

// A process that ends between a change and its consequences leaves clients
// that are remembered for endpoints which are gone. The next one forgets them.
func TestStartForgetsClientsOfEndpointsThatAreGone(t *testing.T) {
	space.Enter(t)
	services := open(t)
	p := sample(1)
	if _, err := services.Set(p); err != nil {
		t.Fatal(err)
	}
	remember := func(client string, group uint32, to netip.AddrPort) {
		b := services.kernel.NewBatch()
		l := table.List{Batch: b, Op: table.Put, Name: "affinity4"}
		l.Add(func(w *wire.Attrs) {
			table.Key(w, func(b []byte) []byte {
				return table.AppendHost(table.AppendAddr(b, netip.MustParseAddr(client)), group)
			})
			table.Data(w, func(b []byte) []byte { return appendEndpoint(b, to) })
		})
		l.End()
		if err := services.kernel.Send(b); err != nil {
			t.Fatal(err)
		}
	}
	remember("192.0.2.1", vip.FirstGroup, p.Endpoints[vip.Slot{Group: vip.FirstGroup}])
	remember("192.0.2.2", vip.FirstGroup, netip.MustParseAddrPort("10.244.99.99:8080"))
	remember("192.0.2.3", vip.FirstGroup+100, p.Endpoints[vip.Slot{Group: vip.FirstGroup}])
	services.Close()
	next := open(t)
	if _, err := next.Set(p); err != nil {
		t.Fatal(err)
	}
	out := space.Nft(t, "list", "map", "inet", Name, "affinity4")
	if !strings.Contains(out, "192.0.2.1 ") || strings.Contains(out, "192.0.2.2") || strings.Contains(out, "192.0.2.3") {
		t.Errorf("remembered are\n%s", out)
	}
	// With its Service, a group forgets its clients.
	if err := next.Apply(vip.Diff(p, vip.New())); err != nil {
		t.Fatal(err)
	}
	if out := space.Nft(t, "list", "map", "inet", Name, "affinity4"); strings.Contains(out, "elements") {
		t.Errorf("after the Service's end remembered are\n%s", out)
	}
}
