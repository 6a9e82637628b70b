package pki

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func TestWrite(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	spec := Spec{
		Server:    "https://[fd00:30::11]:6443",
		Addresses: []netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("fd00:30::11")},
		Names:     []string{"kubernetes.default.svc"},
		Nodes:     []string{"worker-1"},
	}
	if err := Write(dir, spec); err != nil {
		t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(dir, CACert))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(authority)
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, Certificate("apiserver")), filepath.Join(dir, Key("apiserver")))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"kubernetes.default.svc", "172.30.0.11", "fd00:30::11"} {
		if _, err := pair.Leaf.Verify(x509.VerifyOptions{Roots: pool, DNSName: name}); err != nil {
			t.Errorf("verify the API server as %s: %v", name, err)
		}
	}
	config, err := clientcmd.BuildConfigFromFlags("", filepath.Join(dir, KubeletKubeconfig("worker-1")))
	if err != nil {
		t.Fatal(err)
	}
	client, err := tls.X509KeyPair(config.CertData, config.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	if subject := client.Leaf.Subject.String(); subject != "CN=system:node:worker-1,O=system:nodes" {
		t.Errorf("kubelet is %s", subject)
	}
	if config.Host != spec.Server {
		t.Errorf("server %s", config.Host)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: mode %v, %v; want 0600", f.Name(), info.Mode(), err)
		}
	}
	if err := Write(dir, spec); err == nil || !strings.Contains(err.Error(), "holds a CA already") {
		t.Errorf("second write: %v", err)
	}
}
