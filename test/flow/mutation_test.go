package flow

import (
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/test/need"
)

// spare are rules without which the tables below see no difference, and why.
var spare = []string{
	// Moments that last microseconds: TestChangesLoseNothing meets them.
	"numgen random mod 1 map", "counter packets",
	// Hygiene that only other programs would notice.
	"meta priority set none", "meta mark set meta mark & 0xffcfffff",
	// In IPv4 any refusal is taken at once.
	"ip daddr @addresses4 meta l4proto tcp reject with tcp reset",
}

type rule struct{ chain, handle, text string }

// TestEveryRuleCounts deletes the rules one by one: each time the table of
// flows must go wrong. All of them with POPLIN_SOAK=1, some otherwise.
func TestEveryRuleCounts(t *testing.T) {
	nft := need.Program(t, "nft", "nftables")
	l := newLab(t)
	plainTable(t, l)
	sticky := serviceOf(func(o *object) { o.Affinity = time.Hour }, "pod1", "pod2", "remote")
	l.table.Set(sticky.Service, sticky.slices)
	l.sync(t)
	rules := listRules(t, l, nft)
	if os.Getenv("POPLIN_SOAK") != "1" {
		rand.Shuffle(len(rules), func(i, j int) { rules[i], rules[j] = rules[j], rules[i] })
		rules = rules[:2]
	} else if l.goesWrong(t) {
		t.Fatal("something goes wrong with all the rules there: see TestTable")
	}
	survived := 0
	for _, r := range rules {
		if err := l.node.Do(func() error {
			return exec.Command(nft, "delete", "rule", "inet", applyvip.Name, r.chain, "handle", r.handle).Run()
		}); err != nil {
			t.Fatalf("delete rule %v: %v", r, err)
		}
		if !l.goesWrong(t) {
			survived++
			t.Errorf("nothing goes wrong without, in chain %s: %s", r.chain, r.text)
		}
		// The table is made again as it was, under the same handles or not.
		l.kernel.Forget()
		if err := l.kernel.Remove(); err != nil {
			t.Fatal(err)
		}
		l.table.Set(sticky.Service, sticky.slices)
		l.table.Take()
		if _, err := l.kernel.Set(l.table.Program()); err != nil {
			t.Fatal(err)
		}
		now := listRules(t, l, nft)
		for i := range rules {
			j := slices.IndexFunc(now, func(n rule) bool { return n.chain == rules[i].chain && n.text == rules[i].text })
			if j < 0 {
				t.Fatalf("rule %v is not made again", rules[i])
			}
			rules[i].handle = now[j].handle
		}
	}
	t.Logf("%d rules, %d missed by nobody", len(rules), survived)
}

// goesWrong runs the table until something is not as it should be.
func (l *lab) goesWrong(t *testing.T) bool {
	t.Helper()
	for _, o := range []object{
		serviceOf(func(o *object) { o.Affinity = time.Hour }, "pod1", "pod2", "remote"),
		serviceOf(func(o *object) { o.Affinity, o.ExternalLocal = time.Hour, true }, "pod1", "pod2", "remote"),
		serviceOf(func(o *object) { o.Affinity = time.Hour }, "node", "pod1"),
	} {
		l.table.Set(o.Service, o.slices)
		l.sync(t)
		for _, from := range []string{"client", "stranger", "remote"} {
			for _, ipv6 := range []bool{false, true} {
				first := l.ask(t, from, "node", service.TCP, 30080, ipv6)
				if !strings.Contains(first, "sees") {
					return true
				}
				for range 8 {
					if l.ask(t, from, "node", service.TCP, 30080, ipv6) != first {
						return true
					}
				}
			}
		}
	}
	for _, row := range table {
		l.table.Set(row.Service, row.slices)
		l.sync(t)
		for _, f := range row.flows {
			for _, ipv6 := range []bool{false, true} {
				if l.survey(t, f.from, f.to, row.proto, f.port, ipv6) != f.want {
					return true
				}
			}
		}
	}
	return false
}

// plainTable replaces the lab's table by one that others may change.
func plainTable(t *testing.T, l *lab) {
	t.Helper()
	if err := l.kernel.Remove(); err != nil {
		t.Fatal(err)
	}
	l.kernel.Close()
	if err := l.node.Do(func() (err error) {
		l.kernel, err = applyvip.Open(applyvip.Config{Plain: true, Log: slog.New(slog.DiscardHandler)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.kernel.Close() })
	if _, err := l.kernel.Set(l.table.Program()); err != nil {
		t.Fatal(err)
	}
}

var ruleLine = regexp.MustCompile(`^(.*) # handle (\d+)$`)

// listRules are those that should be missed.
func listRules(t *testing.T, l *lab, nft string) (rules []rule) {
	t.Helper()
	var out []byte
	if err := l.node.Do(func() (err error) {
		out, err = exec.Command(nft, "-a", "list", "table", "inet", applyvip.Name).Output()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	chain := ""
	for line := range strings.Lines(string(out)) {
		line = strings.TrimSpace(line)
		if f := strings.Fields(line); len(f) > 1 && f[0] == "chain" {
			chain = f[1]
		}
		m := ruleLine.FindStringSubmatch(line)
		if chain == "" || m == nil || strings.HasSuffix(m[1], "{") {
			continue
		}
		r := rule{chain, m[2], m[1]}
		if !slices.ContainsFunc(spare, func(s string) bool { return strings.Contains(r.text, s) }) {
			rules = append(rules, r)
		}
	}
	return rules
}
