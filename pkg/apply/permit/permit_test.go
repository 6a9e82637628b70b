package permit

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/test/agree"
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

// sample has elements of each kind, of which dice says how many and which.
func sample(dice *rand.Rand) permit.Program {
	p := permit.New()
	ports := []permit.Ports{permit.Nothing, permit.Everything, permit.FirstPorts, permit.Ports(permit.FirstPorts + 1).WithOthers()}
	for i := range dice.IntN(20) {
		for _, a := range []netip.Addr{netip.AddrFrom4([4]byte{10, 244, 0, byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x", i+1))} {
			class := permit.Class(dice.IntN(5))
			p.Peers[a] = class
			p.Egress[permit.Pair{Pod: a, Class: class}] = ports[dice.IntN(len(ports))]
			p.Ingress[permit.Pair{Pod: a, Class: class}] = ports[dice.IntN(len(ports))]
			for _, set := range []map[netip.Addr]struct{}{p.Senders, p.Receivers, p.Loops} {
				if dice.IntN(2) == 0 {
					set[a] = struct{}{}
				}
			}
		}
	}
	for _, s := range ports[2:] {
		first := uint16(dice.IntN(60000))
		for _, proto := range []service.Protocol{service.TCP, service.UDP, service.SCTP} {
			p.Ports[permit.Span{Ports: s, Proto: proto, First: first, Last: first + uint16(dice.IntN(3))}] = struct{}{}
		}
	}
	for _, r := range [][]string{
		{"0.0.0.0-9.255.255.255", "10.0.0.0-10.0.0.0", "10.0.0.1-10.0.0.9", "192.0.2.0-255.255.255.255", "::-::ffff"},
		{"10.0.0.0-10.0.0.7", "8000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"0.0.0.0-255.255.255.255"},
	}[dice.IntN(3)] {
		first, last, _ := strings.Cut(r, "-")
		p.Ranges[permit.Range{First: netip.MustParseAddr(first), Last: netip.MustParseAddr(last)}] = permit.Class(1 + dice.IntN(3))
	}
	return p
}

// What nft prints is what our programs say, so a person can trust either.
func TestRulesAsNftPrintsThem(t *testing.T) {
	t.Run("plain", func(t *testing.T) { printedAsSaid(t, Config{}) })
	t.Run("keeping", func(t *testing.T) { printedAsSaid(t, Config{Keep: true}) })
	t.Run("logging", func(t *testing.T) { printedAsSaid(t, Config{LogDrops: true}) })
}

func printedAsSaid(t *testing.T, conf Config) {
	t.Helper()
	space.Enter(t)
	conf.Log = slog.New(slog.DiscardHandler)
	table, err := Open(conf)
	if err != nil {
		t.Fatal(err)
	}
	defer table.Close()
	isolating := permit.New()
	isolating.Senders[netip.MustParseAddr("10.244.0.1")] = struct{}{}
	if _, err := table.Set(isolating); err != nil {
		t.Fatal(err)
	}
	printed := map[string]bool{}
	for line := range strings.Lines(space.Nft(t, "list", "table", "inet", Name)) {
		printed[strings.TrimSpace(strings.ReplaceAll(line, " packets 0 bytes 0", ""))] = true
	}
	for _, c := range table.chains(isolating) {
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
	agree.AfterEveryChange(t, table, func() error { return table.kernel.Reconnect(nil) }, func(dice *rand.Rand) permit.Program {
		if dice.IntN(10) == 0 {
			return permit.New()
		}
		return sample(dice)
	})
}

// Looking finds nothing wrong with what was written, and all that is.
func TestLook(t *testing.T) {
	isolating := permit.New()
	isolating.Senders[netip.MustParseAddr("10.244.0.1")] = struct{}{}
	for _, conf := range []Config{{}, {LogDrops: true}, {Keep: true}, {Unlabelled: true}, {Unlabelled: true, LogDrops: true, Keep: true}} {
		for _, want := range []permit.Program{permit.New(), isolating} {
			t.Run(fmt.Sprintf("logging %v, unlabelled %v, keeping %v, %d isolated", conf.LogDrops, conf.Unlabelled, conf.Keep, len(want.Senders)), func(t *testing.T) {
				space.Enter(t)
				conf.Log, conf.Plain = slog.New(slog.DiscardHandler), true
				table, err := Open(conf)
				if err != nil {
					t.Fatal(err)
				}
				defer table.Close()
				if _, err := table.Set(want); err != nil {
					t.Fatal(err)
				}
				got, wrong, err := Look()
				if err != nil || len(wrong) > 0 || got.String() != want.String() {
					t.Errorf("%v, wrong: %q, holds\n%s", err, wrong, got)
				}
				space.Nft(t, "flush", "chain", "inet", Name, "egress-ports")
				if _, wrong, err = Look(); err != nil || len(wrong) != 1 || !strings.Contains(wrong[0], "egress-ports") {
					t.Errorf("without the rules of egress-ports: %v, wrong: %q", err, wrong)
				}
			})
		}
	}
}
