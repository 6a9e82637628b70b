//go:build e2e

package fault

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/fault/corpus"
	"poplin.dev/poplin/test/live"
)

var update = flag.Bool("update", false, "write the transcripts of docs/trace.md anew")

// transcript is one in docs/trace.md: a fault's name, and what a person types and
// sees while the fault is there.
var transcript = regexp.MustCompile("(?s)<!-- transcript (\\S+) -->\n```\n(.*?)```\n")

// TestTranscripts: what docs/trace.md says that the tool says of a trouble, it does.
func TestTranscripts(t *testing.T) {
	c := shared(t)
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(root, "docs", "trace.md")
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all, err := corpus.Read()
	if err != nil {
		t.Fatal(err)
	}
	lab := corpus.Open(t, c, 8080)
	live.Inspect(t, c)
	const promised = 5
	found := transcript.FindAllSubmatch(page, -1)
	if len(found) < promised {
		t.Errorf("there are %d transcripts, and %d are promised", len(found), promised)
	}
	text := string(page)
	for _, m := range found {
		name, want := string(m[1]), string(m[2])
		i := slices.IndexFunc(all, func(f corpus.Fault) bool { return f.Name == name })
		if i < 0 {
			t.Fatalf("there is no fault %q", name)
		}
		f := all[i]
		f.Path = corpus.Path{Kind: corpus.PodToName, Family: 4, OtherNode: true, Workers: true}
		of := lab.Draw(t, f, rand.New(rand.NewPCG(1, 1))) // the same ends each time
		if err := of.Works(t.Context()); err != nil {
			t.Fatalf("%s: %v", of, err)
		}
		var got string
		breaks(t, of, func() { got = seen(t, c, of) })
		if got != want && !*update {
			t.Errorf("%s: docs/trace.md (-update writes it) says\n%sand the tool\n%s", name, want, got)
		}
		begin, _, _ := strings.Cut(string(m[0]), "```")
		text = strings.Replace(text, string(m[0]), begin+"```\n"+got+"```\n", 1)
	}
	if *update && text != string(page) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// fine is a run of hops with which nothing is wrong.
var fine = regexp.MustCompile(`(?m)^(OK .*\n)(?:OK .*\n)+(OK .*\n)`)

// seen is what a person types about a case, and sees, with addresses and devices
// that do not vary. Of hops in a row that are OK the first and the last are kept.
func seen(t *testing.T, c *cluster.Cluster, of *corpus.Case) string {
	t.Helper()
	from, to := of.Ends()
	args := []string{"trace", from, to, "-family", fmt.Sprint(of.Family())}
	cmd := live.Poplinctl(t.Context(), t, c, args...)
	out, err := cmd.Output()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() < 10 {
		t.Errorf("%v: %v: want the exit code of a hop", args, err)
	}
	text := "$ poplinctl " + strings.Join(args, " ") + "\n" + string(out)
	for _, x := range [][2]string{
		{of.Value("CLIENT_IP"), "10.244.1.5"}, {of.Value("SERVER_IP"), "10.244.2.7"}, {of.Value("VIP_4"), "10.96.21.7"},
		{of.Value("CLIENT_LINK"), "plw0c5a1f2e3b4d"}, {of.Value("SERVER_LINK"), "plw1d6b2a3f4c5e"},
	} {
		text = regexp.MustCompile(`\b`+regexp.QuoteMeta(x[0])+`\b`).ReplaceAllString(text, x[1])
	}
	return fine.ReplaceAllString(text, "$1...\n$2")
}
