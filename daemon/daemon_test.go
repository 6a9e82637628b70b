package daemon_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/daemon"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/kube/kubetest"
	"poplin.dev/poplin/test/need"
)

const child = "POPLIN_TEST_NODE"

// TestDaemon runs the whole daemon against an API server in memory, in a
// process of its own whose only network is a new namespace.
func TestDaemon(t *testing.T) {
	if os.Getenv(child) != "" {
		testDaemon(t)
		return
	}
	need.Root(t)
	need.Link(t, "vxlan")
	need.Link(t, "veth")
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestDaemon$", "-test.v", "-test.timeout=2m")
	cmd.Env = append(os.Environ(), child+"=1", "KUBERNETES_SERVICE_HOST=", "TMPDIR="+t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}

type object = kubetest.Object

// machine is the node under test, with the life of one daemon after another.
type machine struct {
	t   *testing.T
	api *kubetest.Server
	cfg daemon.Config
	dir string
}

func newMachine(t *testing.T) *machine {
	// Without duplicate address detection, addresses stay as they are; the
	// others are an administrator's choices that the kernel forgets when it is
	// told to forward.
	for key, value := range map[string]string{"ipv6/conf/default/accept_dad": "0", "ipv4/conf/lo/forwarding": "1", "ipv4/conf/all/accept_redirects": "0"} {
		if err := os.WriteFile("/proc/sys/net/"+key, []byte(value), 0); err != nil {
			t.Fatal(err)
		}
	}
	// The underlay is a cable that nobody holds the other end of.
	cable := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0", MTU: 1500}, PeerName: "far"}
	if err := netlink.LinkAdd(cable); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"172.30.0.11/24", "fd00:30::11/64"} {
		addr, _ := netlink.ParseAddr(s)
		addr.Flags = syscall.IFA_F_NODAD
		if err := netlink.AddrAdd(cable, addr); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"lo", "eth0", "far"} {
		link, err := netlink.LinkByName(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	m := &machine{t: t, api: kubetest.New(t), dir: t.TempDir()}
	m.cfg = daemon.Config{
		NodeName: "worker-1", File: filepath.Join(m.dir, "config.yaml"), Credentials: m.api.Credentials(),
		StateDir: filepath.Join(m.dir, "state"), Socket: filepath.Join(m.dir, "poplind.sock"),
		SysctlRoot: "/proc/sys/net", IPAMDir: filepath.Join(m.dir, "ipam", "networks"), CNICache: filepath.Join(m.dir, "cache"), Log: t.Output(),
	}
	m.configure("")
	if err := os.Mkdir(m.conflistDir(), 0o700); err != nil {
		t.Fatal(err)
	}
	return m
}

func (m *machine) conflistDir() string { return filepath.Join(m.dir, "net.d") }

func (m *machine) configure(more string) {
	m.t.Helper()
	text := fmt.Sprintf("apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\napiServer: {endpoints: [%q]}\ncni: {confDir: %s}\n%s", m.api.URL(), m.conflistDir(), more)
	if err := os.WriteFile(m.cfg.File, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

// start runs a daemon; stop ends it and returns its error.
func (m *machine) start() (stop func() error) {
	ctx, cancel := context.WithCancel(m.t.Context())
	done := make(chan error, 1)
	go func() { done <- daemon.Run(ctx, m.cfg) }()
	return func() error { cancel(); return <-done }
}

func (m *machine) report() status.Report {
	r, _ := status.Read(m.t.Context(), m.cfg.Socket)
	return r
}

func (m *machine) until(what string, true func() bool) {
	m.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !true(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			m.t.Fatalf("not within 20 s: %s; %+v", what, m.report())
		}
	}
}

func get(url string) (int, string) {
	resp, err := http.Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func (m *machine) node(podCIDRs ...string) object {
	return object{
		"apiVersion": "v1", "kind": "Node", "metadata": object{"name": "worker-1", "uid": "6c5b"},
		"spec": object{"podCIDRs": podCIDRs},
		"status": object{
			"addresses":  []object{{"type": "InternalIP", "address": "172.30.0.11"}, {"type": "InternalIP", "address": "fd00:30::11"}},
			"conditions": []object{{"type": "NetworkUnavailable", "status": "True"}},
		},
	}
}

func (m *machine) peer() object {
	return object{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork", "metadata": object{"name": "worker-2"},
		"spec": object{"podCIDRs": []string{"10.244.2.0/24", "fd00:10:244:2::/64"}, "mtu": 1450, "vtep": object{"address": "172.30.0.12", "mac": "02:00:00:00:00:02"}},
	}
}

const (
	nodes    = "/api/v1/nodes"
	networks = "/apis/poplin.dev/v1alpha1/nodenetworks"
)

func testDaemon(t *testing.T) {
	m := newMachine(t)
	pristine := m.snapshot()
	m.api.Put(networks, m.peer())
	stop := m.start()

	m.until("the daemon says what it waits for", func() bool {
		code, body := get("http://127.0.0.1:9411/readyz")
		return code == 503 && strings.Contains(body, "cluster: waiting: Node worker-1 does not exist")
	})
	if code, _ := get("http://127.0.0.1:9411/healthz"); code != 200 {
		t.Errorf("waiting, but not alive: %d", code)
	}
	m.api.Put(nodes, m.node())
	m.until("it waits for ranges", func() bool {
		_, body := get("http://127.0.0.1:9411/readyz")
		return strings.Contains(body, "spec.podCIDRs") && strings.Contains(m.readyFile(), "spec.podCIDRs")
	})
	if m.conflist() != "" {
		t.Error("a conflist before there is a range")
	}
	m.api.Put(nodes, m.node("10.244.1.0/24", "fd00:10:244:1::/64"))
	m.until("it is ready", func() bool { return m.report().Ready })
	m.checkReady()
	if got := m.readyFile(); got != "" {
		t.Errorf("ready, but STATUS would say %q", got)
	}
	m.api.Put(nodes, m.node())
	m.until("no pod may start without a range", func() bool { return strings.Contains(m.readyFile(), "spec.podCIDRs") })
	m.checkKernel() // and what is there stays
	m.api.Put(nodes, m.node("10.244.1.0/24", "fd00:10:244:1::/64"))
	m.until("pods may start again", func() bool { return m.readyFile() == "" && m.report().Ready })
	m.checkReady()

	m.ranges()
	m.announced()

	// The API server goes away: nothing happens. The log level is live, the
	// rest waits for a restart.
	address := m.api.Address()
	m.until("nothing is under way that needs it", func() bool {
		before := m.passes("conflist")
		time.Sleep(time.Second)
		return m.passes("conflist") == before
	})
	m.api.Stop()
	m.configure("logLevel: debug\noverlay: {vni: 7}\n")
	m.until("the change is noticed", func() bool { return strings.Join(m.report().Pending, " ") == "overlay.vni" })
	m.until("it is ready without the API server", func() bool { return m.report().Ready })
	m.configure("")
	before, _ := os.Stat(filepath.Join(m.conflistDir(), "10-poplin.conflist"))

	if err := stop(); err != nil {
		t.Error(err)
	}
	m.checkKernel()

	// A daemon that starts without the API server says so, and lets things be.
	stop = m.start()
	m.until("it asks for the API server", func() bool {
		_, body := get("http://127.0.0.1:9411/readyz")
		return strings.Contains(body, "cluster: waiting: reading Node worker-1 from the API server: ")
	})
	m.checkKernel()
	m.api.Start(address)
	m.until("it is ready", func() bool { return m.report().Ready })
	m.checkKernel()
	if after, _ := os.Stat(filepath.Join(m.conflistDir(), "10-poplin.conflist")); !os.SameFile(before, after) {
		t.Error("a restart wrote the conflist again")
	}
	if _, body := get("http://127.0.0.1:9410/metrics"); strings.Contains(body, `poplin_operations_total{result="removed"} 0`) != true {
		t.Errorf("a restart removed something:\n%s", body)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	m.isolation()
	m.powerCycle()
	m.services()
	m.listeners()
	m.hangs()
	m.cleanUp(pristine)
}

// powerCycle starts a daemon on a node that has lost everything but its disk,
// while the API server is away.
func (m *machine) powerCycle() {
	t, address := m.t, m.api.Address()
	m.api.Stop()
	link, err := netlink.LinkByName("poplin-vx")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(netlink.LinkDel(link), os.Remove(filepath.Join(m.conflistDir(), "10-poplin.conflist"))); err != nil {
		t.Fatal(err)
	}
	stop := m.start()
	m.until("overlay and conflist are restored", func() bool { return m.conflist() != "" })
	m.checkKernel()
	if !strings.Contains(m.conflist(), `"policy"`) {
		t.Errorf("pods start unasked while it is not known which policies there are: %s", m.conflist())
	}
	code, body := get("http://127.0.0.1:9411/readyz")
	if code != 503 || !strings.Contains(body, "which may be stale") || !strings.Contains(body, "overlay: ok") {
		t.Errorf("readyz: %d %s", code, body)
	}
	m.api.Start(address)
	m.until("it is ready", func() bool { return m.report().Ready })
	m.checkReady()
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// readyFile is what STATUS answers from.
func (m *machine) readyFile() string {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(m.cfg.Socket), "ready"))
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func (m *machine) conflist() string {
	b, _ := os.ReadFile(filepath.Join(m.conflistDir(), "10-poplin.conflist"))
	return string(b)
}

// announced waits until the Node says that its network is there.
func (m *machine) announced() {
	m.t.Helper()
	m.until("the condition is set", func() bool {
		o, _ := json.Marshal(m.api.Get(nodes + "/worker-1"))
		return strings.Contains(string(o), "PoplinIsUp")
	})
}

// passes are the lines of the metrics that count a task's.
func (m *machine) passes(task string) (lines string) {
	_, metrics := get("http://127.0.0.1:9410/metrics")
	for line := range strings.Lines(metrics) {
		if strings.HasPrefix(line, "poplin_passes_total{") && strings.Contains(line, `task="`+task+`"`) {
			lines += line
		}
	}
	return lines
}

// answers: root on the node is told what the daemon knows of the cluster, and its
// configuration.
func (m *machine) answers() {
	m.t.Helper()
	c, err := status.Cluster(m.t.Context(), m.cfg.Socket)
	if err != nil || !c.Since.IsZero() || len(c.Nodes) != 2 || c.Self.Name != "worker-1" || len(c.Missing) > 0 {
		m.t.Errorf("of the cluster: %+v, %v", c, err)
	}
	text, err := status.Config(m.t.Context(), m.cfg.Socket)
	if want, _ := os.ReadFile(m.cfg.File); err != nil || text != string(want) {
		m.t.Errorf("configuration %q, %v", text, err)
	}
}

func (m *machine) checkReady() {
	t := m.t
	t.Helper()
	m.checkKernel()
	for _, want := range []string{`"10.244.1.0/24"`, `"fd00:10:244:1::/64"`, `"172.30.0.11"`, `"mtu": 1450`} {
		if !strings.Contains(m.conflist(), want) {
			t.Errorf("no %s in the conflist:\n%s", want, m.conflist())
		}
	}
	own, _ := json.Marshal(m.api.Get(networks + "/worker-1"))
	for _, want := range []string{`"podCIDRs":["10.244.1.0/24","fd00:10:244:1::/64"]`, `"address":"172.30.0.11"`, `"uid":"6c5b"`} {
		if !strings.Contains(string(own), want) {
			t.Errorf("no %s in NodeNetwork %s", want, own)
		}
	}
	m.announced()
	if code, body := get("http://127.0.0.1:9411/readyz"); code != 200 || body != "cluster: ok\noverlay: ok\nconflist: ok\ndata path: ok\nservices: ok\npolicy: ok\nprogress: ok\nstatus: ok\n" {
		t.Errorf("readyz: %d %s", code, body)
	}
	_, metrics := get("http://127.0.0.1:9410/metrics")
	for _, want := range []string{
		"poplin_peers 1", "poplin_peers_refused 0", "poplin_ready 1", "poplin_build_info{", "poplin_conflist_writes_total 1",
		`poplin_passes_total{result="ok",task="overlay"}`, `poplin_last_successful_pass_timestamp_seconds{task="overlay"}`,
		`poplin_in_sync{task="overlay"} 1`, "poplin_data_path_working 1", "poplin_conntrack_entries_limit ",
		`poplin_api_connections_total{result="ok"}`, `poplin_api_requests_total{resource="nodenetworks",result="ok"}`,
	} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics:\n%s", want, metrics)
		}
	}
	m.answers()
	if r := m.report(); r.Peers != 1 || r.MTU != 1450 || r.Underlay == nil || r.Underlay.Link != "eth0" || r.APIServer != m.api.Address() {
		t.Errorf("report: %+v", r)
	}
}

// checkKernel looks for the device and the peer's routes.
func (m *machine) checkKernel() {
	m.t.Helper()
	link, err := netlink.LinkByName("poplin-vx")
	if err != nil {
		m.t.Fatal(err)
	}
	routes, err := netlink.RouteList(link, netlink.FAMILY_ALL)
	if err != nil {
		m.t.Fatal(err)
	}
	for _, want := range []string{"10.244.2.0/24", "fd00:10:244:2::/64"} {
		found := false
		for _, r := range routes {
			found = found || r.Dst != nil && r.Dst.String() == want && r.Protocol == 157
		}
		if !found {
			m.t.Errorf("no route to %s: %v", want, routes)
		}
	}
}
