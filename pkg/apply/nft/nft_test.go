package nft

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/program"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

func open(t testing.TB, plain bool) *Table {
	t.Helper()
	table, err := Open(Config{Plain: plain, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { table.Close() })
	return table
}

func prefixes(list ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// sample uses every statement.
func sample(elements4, elements6 []netip.Prefix) program.Table {
	ports := program.Masquerade{Low: 8473, High: 65535}
	return program.Table{
		Module: "m",
		Sets: []program.Set{
			{Name: "m-4", Family: program.IPv4, Elements: elements4},
			{Name: "m-6", Family: program.IPv6, Elements: elements6},
		},
		Chains: []program.Chain{
			{Name: "m-out", Rules: []program.Rule{
				{Comment: "with ports", Statements: []program.Statement{program.L4Proto("udp"), ports}},
				{Statements: []program.Statement{program.Masquerade{}}},
			}},
			{Name: "m-raw", Type: "filter", Hook: "prerouting", Priority: -300, Rules: []program.Rule{
				{Comment: "guard", Statements: []program.Statement{program.LinkGroup(0x706c), program.NoWayBack{}, program.CountAndDrop("m-seen")}},
				{Statements: []program.Statement{program.InSet{Field: program.Daddr4, Set: "m-4"}, program.UDPPort(8472), program.Drop{}}},
				{Statements: []program.Statement{program.ICMPv6("nd-router-advert"), program.Drop{}}},
				{Statements: []program.Statement{program.ICMPv6("nd-redirect"), program.Drop{}}},
				{Statements: []program.Statement{program.ICMP("redirect"), program.Drop{}}},
				{Statements: []program.Statement{program.UDPPort(8472), program.InSet{Field: program.Saddr4, Set: "m-4"}, program.Notrack{}}},
				{Statements: []program.Statement{program.Translated{}, program.InSet{Field: program.Saddr6, Set: "m-6"}, program.Accept{}}},
			}},
			{Name: "m", Type: "nat", Hook: "postrouting", Priority: 100, Rules: []program.Rule{
				{Statements: []program.Statement{
					program.InSet{Field: program.Saddr4, Set: "m-4"},
					program.InSet{Field: program.Daddr4, Not: true, Set: "m-4"}, program.Goto("m-out")}},
				{Statements: []program.Statement{
					program.InSet{Field: program.Saddr6, Set: "m-6"},
					program.InSet{Field: program.Daddr6, Not: true, Set: "m-6"}, program.Goto("m-out")}},
			}},
		},
	}
}

func set(t *testing.T, table *Table, want program.Table) diff.Result {
	t.Helper()
	res, err := table.Set(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// unchanged asserts that a fresh look at the kernel finds nothing to do.
func unchanged(t *testing.T, table *Table, want program.Table) {
	t.Helper()
	table.Forget()
	if res := set(t, table, want); !res.Zero() {
		t.Errorf("a second Set changed %+v", res)
	}
}

func TestSetConverges(t *testing.T) {
	space.Enter(t)
	table := open(t, false)
	a := sample(prefixes("10.244.0.0/24", "10.244.1.0/24", "192.168.0.0/16"), prefixes("fd00:10:244::/64", "ff00::/8"))
	set(t, table, a)
	unchanged(t, table, a)

	// Other elements, one that overlaps an old one, and another rule.
	b := sample(prefixes("10.0.0.0/8", "224.0.0.0/3"), prefixes("fd00::/16"))
	b.Chains[0].Rules = b.Chains[0].Rules[1:]
	if res := set(t, table, b); res.Removed == 0 || res.Added == 0 {
		t.Errorf("result %+v", res)
	}
	unchanged(t, table, b)

	// A hook cannot be changed in place.
	c := b
	c.Chains = slices.Clone(b.Chains)
	c.Chains[2].Priority = 99
	set(t, table, c)
	unchanged(t, table, c)

	if _, err := table.Set(t.Context(), program.Table{Module: "m", Sets: []program.Set{{Name: "other"}}}); err == nil {
		t.Error("a name outside the module was accepted")
	}
	empty := program.Table{Module: "m"}
	if res := set(t, table, empty); res.Removed != 6 {
		t.Errorf("removal: %+v", res)
	}
	unchanged(t, table, empty)
}

func TestModulesLeaveEachOtherAlone(t *testing.T) {
	space.Enter(t)
	table := open(t, false)
	m := sample(prefixes("10.0.0.0/8"), nil)
	set(t, table, m)
	set(t, table, program.Table{Module: "n", Chains: []program.Chain{{Name: "n"}}})
	unchanged(t, table, m)
	set(t, table, program.Table{Module: "n"})
	unchanged(t, table, m)
}

func TestOwnership(t *testing.T) {
	space.Enter(t)
	m := sample(prefixes("10.0.0.0/8"), nil)
	first := open(t, false)
	set(t, first, m)
	flags, _, err := first.lookup()
	if err != nil {
		t.Fatal(err)
	}
	if flags&flagOwner == 0 {
		need.Missing(t, need.OwnedTables, "Linux 6.9 and later have them")
	}
	second := open(t, false)
	if _, err := second.Set(t.Context(), m); err == nil || !strings.Contains(err.Error(), "another process owns it") {
		t.Errorf("second owner: %v", err)
	}
	first.Close()
	if res := set(t, second, m); !res.Zero() {
		t.Errorf("adoption changed %+v", res)
	}
	if res := set(t, second, sample(prefixes("10.0.0.0/8", "11.0.0.0/8"), nil)); res != (diff.Result{Added: 1}) {
		t.Errorf("after adoption: %+v", res)
	}
}

func TestPlainTable(t *testing.T) {
	space.Enter(t)
	m := sample(prefixes("10.0.0.0/8"), nil)
	plain := open(t, true)
	set(t, plain, m)
	unchanged(t, plain, m)
	// Somebody else removes the table: the next pass has it back.
	other := open(t, true)
	if err := other.send((*batch).delTable, 0); err != nil {
		t.Fatal(err)
	}
	plain.Forget()
	if res := set(t, plain, m); res.Added == 0 {
		t.Errorf("repair: %+v", res)
	}
	unchanged(t, plain, m)
	// A process that can own tables takes over.
	plain.Close()
	owner := open(t, false)
	set(t, owner, m)
	unchanged(t, owner, m)
}

func TestManyElements(t *testing.T) {
	space.Enter(t)
	table := open(t, false)
	var v4, v6 []netip.Prefix
	for i := range 12_000 {
		v4 = append(v4, netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(10 + i>>14), byte(i >> 6), byte(i << 2), 0}), 22))
		v6 = append(v6, netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfd, 6: byte(i >> 8), 7: byte(i)}), 64))
	}
	for i := range v4 {
		v4[i] = v4[i].Masked()
	}
	slices.SortFunc(v4, func(a, b netip.Prefix) int { return a.Addr().Compare(b.Addr()) })
	v4 = slices.Compact(v4)
	m := sample(v4, v6)
	set(t, table, m)
	unchanged(t, table, m)
}

func TestCancelled(t *testing.T) {
	space.Enter(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := open(t, false).Set(ctx, sample(nil, nil)); err == nil {
		t.Error("no error")
	}
}

// TestNftPrints holds us to what administrators' tools can show.
func TestNftPrints(t *testing.T) {
	nft := need.Program(t, "nft", "nftables")
	space.Enter(t)
	m := sample(prefixes("10.244.0.0/24"), prefixes("fd00::/64"))
	set(t, open(t, false), m)
	out, err := exec.Command(nft, "list", "table", "inet", Name).CombinedOutput()
	if err != nil {
		t.Fatalf("nft: %v\n%s", err, out)
	}
	printed := string(out)
	for _, c := range m.Chains {
		for _, r := range c.Rules {
			if !strings.Contains(printed, r.String()) {
				t.Errorf("nft does not print the rule %q:\n%s", r, out)
			}
		}
	}
}

func TestIntervals(t *testing.T) {
	for _, list := range [][]string{
		{"10.0.0.0/24"},
		{"10.0.0.0/24", "10.0.1.0/24"},
		{"0.0.0.0/0"},
		{"0.0.0.0/1", "128.0.0.0/1"},
		{"224.0.0.0/4", "240.0.0.0/4", "10.1.2.3/32"},
		{"fd00::/64", "fd00:0:0:1::/64", "ff00::/8", "::1/128"},
	} {
		t.Run(fmt.Sprint(list), func(t *testing.T) {
			want := prefixes(list...)
			got, ok := decodeElements(encodeElements(want))
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("got %v (%v), want %v", got, ok, want)
			}
		})
	}
}
