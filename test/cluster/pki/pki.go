// Package pki makes the keys, certificates and kubeconfigs of a cluster. In:
// the address of the API server, the names and addresses it answers to, and
// the names of the nodes. Out: files in one directory, readable by their
// owner only. It refuses a directory that holds a CA already.
package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"sigs.k8s.io/yaml"
)

// Spec says whom the certificates are for.
type Spec struct {
	Server    string // URL of the API server
	Addresses []netip.Addr
	Names     []string // DNS names of the API server
	Nodes     []string
}

// Names of the files, all in one directory. A kubelet's kubeconfig is
// KubeletKubeconfig(node).
const (
	CACert               = "ca.crt"
	CAKey                = "ca.key"
	FrontProxyCACert     = "front-proxy-ca.crt"
	ServiceAccountKey    = "service-account.key"
	ServiceAccountPublic = "service-account.pub"
	AdminKubeconfig      = "admin.kubeconfig"
	ControllerKubeconfig = "kube-controller-manager.kubeconfig"
	SchedulerKubeconfig  = "kube-scheduler.kubeconfig"
	ProxyKubeconfig      = "kube-proxy.kubeconfig"
)

// KubeletKubeconfig names the kubeconfig of a node's kubelet.
func KubeletKubeconfig(node string) string { return "kubelet-" + node + ".kubeconfig" }

// Certificate and Key name the files of one identity: "apiserver",
// "apiserver-kubelet-client", "front-proxy-client", "admin".
func Certificate(identity string) string { return identity + ".crt" }

// Key is the private key that belongs to Certificate.
func Key(identity string) string { return identity + ".key" }

// Write makes everything.
func Write(dir string, spec Spec) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if _, err := os.Lstat(filepath.Join(dir, CACert)); err == nil {
		return fmt.Errorf("make certificates: %s holds a CA already", dir)
	}
	w := &writer{dir: dir, spec: spec}
	w.all()
	if w.err != nil {
		return fmt.Errorf("make certificates: %w", w.err)
	}
	return nil
}

// writer remembers its first error, so that a list of files stays a list.
type writer struct {
	dir  string
	spec Spec
	err  error
}

// identity is a certificate with its key.
type identity struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	certPEM     []byte
	keyPEM      []byte
}

func (w *writer) all() {
	ca := w.authority("ca")
	front := w.authority("front-proxy-ca")
	w.issue("front-proxy-client", pkix.Name{CommonName: "front-proxy-client"}, front, nil, nil)
	w.issue("apiserver", pkix.Name{CommonName: "kube-apiserver"}, ca, w.spec.Names, w.spec.Addresses)
	w.issue("apiserver-kubelet-client", pkix.Name{CommonName: "apiserver-kubelet-client", Organization: []string{"system:masters"}}, ca, nil, nil)
	w.serviceAccount()
	w.kubeconfig("admin", pkix.Name{CommonName: "cluster-admin", Organization: []string{"system:masters"}}, ca)
	for _, component := range []string{"kube-controller-manager", "kube-scheduler", "kube-proxy"} {
		w.kubeconfig(component, pkix.Name{CommonName: "system:" + component}, ca)
	}
	for _, node := range w.spec.Nodes {
		w.kubeconfig("kubelet-"+node, pkix.Name{CommonName: "system:node:" + node, Organization: []string{"system:nodes"}}, ca)
	}
}

func (w *writer) authority(name string) *identity {
	return w.sign(name, &x509.Certificate{
		Subject: pkix.Name{CommonName: "cluster " + name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}, nil)
}

func (w *writer) issue(name string, subject pkix.Name, ca *identity, names []string, addresses []netip.Addr) *identity {
	template := &x509.Certificate{
		Subject: subject, DNSNames: names,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	for _, address := range addresses {
		template.IPAddresses = append(template.IPAddresses, net.IP(address.AsSlice()))
	}
	return w.sign(name, template, ca)
}

// sign makes a key and its certificate, by ca or, without one, by itself.
func (w *writer) sign(name string, template *x509.Certificate, ca *identity) *identity {
	if w.err != nil {
		return nil
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.err = err
		return nil
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		w.err = err
		return nil
	}
	now := time.Now()
	template.SerialNumber, template.NotBefore, template.NotAfter = serial, now.Add(-time.Hour), now.AddDate(1, 0, 0)
	parent, signer := template, key
	if ca != nil {
		parent, signer = ca.certificate, ca.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		w.err = fmt.Errorf("sign %s: %w", name, err)
		return nil
	}
	certificate, err := x509.ParseCertificate(der)
	keyPEM, keyErr := encodeKey(key)
	if w.err = errors.Join(err, keyErr); w.err != nil {
		return nil
	}
	id := &identity{certificate, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), keyPEM}
	w.file(Certificate(name), id.certPEM)
	w.file(Key(name), id.keyPEM)
	return id
}

func (w *writer) serviceAccount() {
	if w.err != nil {
		return
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.err = err
		return
	}
	private, err := encodeKey(key)
	public, publicErr := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if w.err = errors.Join(err, publicErr); w.err != nil {
		return
	}
	w.file(ServiceAccountKey, private)
	w.file(ServiceAccountPublic, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
}

// kubeconfig issues an identity and writes a kubeconfig that carries it.
func (w *writer) kubeconfig(name string, subject pkix.Name, ca *identity) {
	id := w.issue(name, subject, ca, nil, nil)
	if w.err != nil {
		return
	}
	type object = map[string]any
	b, err := yaml.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": "cluster",
		"clusters": []object{{"name": "cluster", "cluster": object{"server": w.spec.Server, "certificate-authority-data": ca.certPEM}}},
		"users":    []object{{"name": name, "user": object{"client-certificate-data": id.certPEM, "client-key-data": id.keyPEM}}},
		"contexts": []object{{"name": "cluster", "context": object{"cluster": "cluster", "user": name}}},
	})
	if err != nil {
		w.err = fmt.Errorf("write kubeconfig of %s: %w", name, err)
		return
	}
	w.file(name+".kubeconfig", b)
}

func (w *writer) file(name string, content []byte) {
	if w.err == nil {
		w.err = os.WriteFile(filepath.Join(w.dir, name), content, 0o600)
	}
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), err
}
