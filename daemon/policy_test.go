package daemon_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"poplin.dev/poplin/plugins/isolation"
)

const (
	namespaces = "/api/v1/namespaces"
	pods       = "/api/v1/namespaces/shop/pods"
	policies   = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"
)

// isolation asks the daemon as the CNI plugin does, and looks at what tells the
// plugin to ask: it is there with policies, and gone without.
func (m *machine) isolation() {
	t, file := m.t, filepath.Join(m.cfg.StateDir, isolation.File)
	stop := m.start()
	saved := func() string { b, _ := os.ReadFile(file); return string(b) }
	told := func() bool { return strings.Contains(m.conflist(), `"socket": "`+m.cfg.Socket+`"`) }
	may := func(namespace string) error {
		a := isolation.Ask(m.cfg.Socket, "/nowhere", isolation.Question{
			Namespace: namespace, Name: "web", UID: "7", Sandbox: "0123", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.9")},
		})
		defer a.Close()
		return a.Wait()
	}
	for _, name := range []string{"shop", "default"} {
		m.api.Put(namespaces, object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	}
	m.api.Put(policies, object{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": "deny", "namespace": "shop"},
		"spec": object{"podSelector": object{}, "policyTypes": []string{"Ingress"}},
	})
	m.until("the plugin is told to ask, and what for want of an answer", func() bool {
		return told() && strings.Contains(saved(), `"default":false`) && strings.Contains(saved(), `"shop":true`)
	})
	if err := may("default"); err != nil {
		t.Error(err)
	}
	if err := may("shop"); err == nil || !strings.Contains(err.Error(), "shop/web") {
		t.Errorf("a pod starts that the API server has not told of: %v", err)
	}
	m.api.Put(pods, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "web", "namespace": "shop", "uid": "7"}, "spec": object{"nodeName": "worker-1"},
	})
	if err := may("shop"); err != nil {
		t.Error(err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}

	m.configure("policy: {enabled: false}\n")
	stop = m.start()
	m.until("the plugin is told to ask no more", func() bool { return m.report().Ready && m.conflist() != "" && !told() && saved() == "" })
	if err := stop(); err != nil {
		t.Error(err)
	}
	m.configure("")
	stop = m.start()
	m.until("the plugin is told to ask again", func() bool { return m.report().Ready && told() && saved() != "" })
	if err := stop(); err != nil {
		t.Error(err)
	}
}
