package daemon_test

import (
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/daemon/cleanup"
	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/test/snapshot"
)

// snapshot is the machine's network, and the directories that a node has in
// real life; configuration and API server are the test's.
func (m *machine) snapshot() snapshot.Snapshot {
	m.t.Helper()
	s, err := snapshot.Take(func(command ...string) ([]byte, error) {
		return exec.Command(command[0], command[1:]...).Output()
	}, m.conflistDir(), m.cfg.StateDir, m.dir+"/opt", m.dir+"/ipam", m.dir+"/run")
	if err != nil {
		m.t.Fatal(err)
	}
	return s
}

// cleanUp makes the machine what it was before the first daemon.
func (m *machine) cleanUp(before snapshot.Snapshot) {
	t := m.t
	var out strings.Builder
	cfg := cleanup.Config{
		Root: "/", ConfDir: m.conflistDir(), BinDir: m.dir + "/opt/cni/bin", DataDir: m.dir + "/ipam/networks",
		StateDir: m.cfg.StateDir, Socket: m.cfg.Socket, Network: "poplin", Out: &out, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	clean := func() error { out.Reset(); return cleanup.Run(t.Context(), cfg) }

	stop := m.start()
	m.until("it is ready", func() bool { return m.report().Ready })
	if err := clean(); err == nil || !strings.Contains(err.Error(), "poplind runs on this node") {
		t.Errorf("beside a daemon: %v", err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	m.checkKernel()

	pod := m.pod()
	if err := clean(); err == nil || !strings.Contains(err.Error(), "1 pods have their network from Poplin: shop/cart: drain the node") {
		t.Errorf("under a pod: %v", err)
	}
	m.checkKernel()
	if m.conflist() == "" {
		t.Error("a refused cleanup removed the conflist")
	}

	// A step that fails is reported, and the others are done.
	cfg.Force = true
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	stuck := m.dir + "/opt/cni/bin/poplin"
	must(os.MkdirAll(stuck, 0o755))
	must(syscall.Mount("tmpfs", stuck, "tmpfs", 0, ""))
	err := clean()
	must(syscall.Unmount(stuck, 0))
	if err == nil || !strings.Contains(err.Error(), "CNI plugin: remove "+stuck) || !strings.Contains(err.Error(), "run it again") {
		t.Errorf("with a directory in use: %v\n%s", err, &out)
	}
	for _, want := range []string{"taken from 1 pods: shop/cart", "net/ipv4/ip_forward is 0 again", "net/ipv6/conf/all/forwarding is 0 again", "removed nftables table inet poplin"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in the report:\n%s", want, &out)
		}
	}
	if _, err := netlink.LinkByName(pod); err == nil {
		t.Error("the pod still has its link")
	}

	must(clean())
	must(os.RemoveAll(m.dir + "/opt")) // the test's own
	if d := snapshot.Diff(before, m.snapshot()); d != "" {
		t.Errorf("the machine is not what it was:\n%s", d)
	}
	// There is nothing left to be done, and it makes nothing.
	must(clean())
	if strings.Contains(out.String(), "removed") {
		t.Errorf("a second run: %s", &out)
	}
	if d := snapshot.Diff(before, m.snapshot()); d != "" {
		t.Errorf("after a second run:\n%s", d)
	}
}

// pod makes what the CNI plugin does, as far as a cleanup is concerned.
func (m *machine) pod() (link string) {
	m.t.Helper()
	link = plan.HostName("0123", "eth0")
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.Group = link, plan.LinkGroup
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: "pod"}
	addr := netip.MustParseAddr("10.244.1.2")
	files := filepath.Join(m.dir, "ipam/networks/poplin", addr.String())
	for _, err := range []error{
		netlink.LinkAdd(pair),
		netlink.LinkSetAlias(pair, "poplin:shop/cart"),
		netlink.LinkSetUp(pair),
		os.MkdirAll(filepath.Dir(files), 0o755),
		os.MkdirAll(m.dir+"/ipam/networks/.poplin/poplin", 0o700),
		os.WriteFile(files, []byte("0123\r\neth0"), 0o600),
	} {
		if err != nil {
			m.t.Fatal(err)
		}
	}
	return link
}
