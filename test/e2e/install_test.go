//go:build e2e

package e2e

import (
	"context"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/manifest"
	"poplin.dev/poplin/test/live"
)

// TestInstall puts Poplin on a cluster without a network, and takes it away
// again: with the commands that docs/install.md has for it, then with kustomize
// and with Helm.
func TestInstall(t *testing.T) {
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	c := live.Temporary(t, cluster.Options{Name: "test-install", Nodes: 2, Family: "ipv4", Network: "none", Proxy: "none"})
	t.Run("ByThePage", func(t *testing.T) { byThePage(t, c, root) })
	t.Run("ByKustomize", func(t *testing.T) { byKustomize(t, c, root) })
	t.Run("ByHelm", func(t *testing.T) { byHelm(t, c, root) })
}

// elsewhere are the sections of docs/install.md whose commands other tests run.
var elsewhere = map[string]string{
	"With Helm":                                  "byHelm",
	"With kustomize":                             "byKustomize",
	"With neither Helm nor kustomize":            "install/chart: TestManifestIsTheManifests",
	"Beside systemd-networkd and NetworkManager": "install: TestHostPatch",
	"More rights":                                "TestDaemonIsConfined",
	"As a static pod":                            "TestStaticPod",
}

func byThePage(t *testing.T, c *cluster.Cluster, root string) {
	r := reader{t, c, stranger(t, c, root)}
	names(t, c)
	ran := 0
	for _, s := range installPage(t, root) {
		if elsewhere[s.title] != "" {
			continue
		}
		for _, command := range s.commands {
			r.run(command)
			ran++
		}
	}
	if ran < 15 {
		t.Errorf("the page has %d commands: is the pattern right?", ran)
	}
	// The page's last word is that the node is as it was.
	for _, node := range c.Nodes() {
		await.Success(t, time.Minute, func() error {
			_, err := c.Kubectl(t.Context(), "wait", "--for=condition=Ready=false", "node/"+node, "--timeout=1s")
			return err
		})
	}
}

// section is some of docs/install.md: its title, and the commands of its blocks.
type section struct {
	title    string
	commands []string
}

var (
	heading = regexp.MustCompile(`(?m)^## (.*)$`)
	// commands are a block without a language: those with one are no commands.
	commands = regexp.MustCompile("(?ms)^```\n(.*?)^```$")
)

func installPage(t *testing.T, root string) (list []section) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "docs", "install.md"))
	if err != nil {
		t.Fatal(err)
	}
	page := string(text)
	at := heading.FindAllStringSubmatchIndex(page, -1)
	for i, m := range at {
		end := len(page)
		if i+1 < len(at) {
			end = at[i+1][0]
		}
		s := section{title: page[m[2]:m[3]]}
		for _, b := range commands.FindAllStringSubmatch(page[m[1]:end], -1) {
			for line := range strings.Lines(strings.ReplaceAll(b[1], "\\\n", " ")) {
				s.commands = append(s.commands, strings.TrimSpace(line))
			}
		}
		list = append(list, s)
	}
	return list
}

// reader is who does what the page says.
type reader struct {
	t   *testing.T
	c   *cluster.Cluster
	dir string // what has been downloaded
}

// stranger has the manifests and the programs, and the image on each node.
func stranger(t *testing.T, c *cluster.Cluster, root string) (dir string) {
	dir = t.TempDir()
	if err := os.CopyFS(filepath.Join(dir, "install/manifests"), os.DirFS(filepath.Join(root, "install/manifests"))); err != nil {
		t.Fatal(err)
	}
	for name, program := range map[string]string{"kubectl": c.Kubernetes.Program("kubectl"), "poplinctl": filepath.Join(root, "bin", "poplinctl")} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	image, err := os.ReadFile(filepath.Join(root, "dist", "poplin-image.tar"))
	if err != nil {
		t.Fatal(err)
	}
	for _, node := range c.Nodes() {
		path, err := c.Path(node, "/var/poplin-image.tar")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// names gives the cluster its DNS, as kubeadm does before there is a network.
func names(t *testing.T, c *cluster.Cluster) {
	dns, err := manifest.DNS(c.CoreDNS, []netip.Addr{netip.MustParseAddr("10.96.0.10")})
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := c.KubectlCommand(t.Context(), "apply", "--server-side", "-f", "-")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdin = strings.NewReader(dns)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// server are the addresses that the page gives the API server.
var server = regexp.MustCompile(`https://[0-9.]+:6443`)

// run runs a line where its comment says: on the node, on each node, or in the
// reader's shell; for each node where it says NODE.
func (r reader) run(line string) {
	r.t.Helper()
	line = server.ReplaceAllLiteralString(line, r.c.Server())
	_, where, _ := strings.Cut(line, " # ")
	nodes := r.c.Nodes()
	switch {
	case strings.Contains(line, "NODE"):
		for _, node := range nodes {
			r.shell(strings.ReplaceAll(line, "NODE", node))
		}
	case strings.HasPrefix(strings.TrimSpace(where), "on each node"):
		for _, node := range nodes {
			r.on(node, line)
		}
	case strings.HasPrefix(strings.TrimSpace(where), "on the node"):
		r.on(nodes[0], line)
	default:
		r.shell(line)
	}
}

func (r reader) on(node, line string) {
	r.t.Helper()
	started := time.Now()
	out, err := r.c.Exec(r.t.Context(), node, "bash", "-ec", "cd /var; "+line)
	r.tell(line, started, out, err)
}

func (r reader) shell(line string) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(r.t.Context(), 3*time.Minute)
	defer cancel()
	started := time.Now()
	cmd := exec.CommandContext(ctx, "nsenter", "--net="+r.c.Namespace(r.c.Nodes()[0]), "--", "bash", "-ec", line)
	cmd.Dir = r.dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+r.c.Kubeconfig(), "HOME="+r.dir, "PATH="+r.dir+":"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	r.tell(line, started, out, err)
}

func (r reader) tell(line string, started time.Time, out []byte, err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatalf("%s\n%s%v", line, out, err)
	}
	r.t.Logf("%5.1f s  %s", time.Since(started).Seconds(), line)
}
