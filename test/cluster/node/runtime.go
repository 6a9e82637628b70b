package node

import (
	"bytes"
	_ "embed"
	"fmt"
	"text/template"
)

// Runtime is a container runtime: its programs and the form of its
// configuration. A node runs one; which is the caller's choice.
type Runtime struct {
	Program string // the daemon
	Client  string // ctr of the same version
	shim    string // of the same version; where it is empty, the one in PATH
	config  string // a template of RuntimeSettings and the shim
}

// RuntimeSettings are what a runtime's configuration depends on.
type RuntimeSettings struct {
	PauseImage string
	AppArmor   bool
}

// Paths and address of a runtime, on each node.
const (
	RuntimeConfig = "/etc/containerd/config.toml"
	RuntimeSocket = "/run/containerd/containerd.sock"
)

//go:embed containerd-1.toml
var containerd1 string

// DebianContainerd is the containerd of Debian 12 (1.6).
func DebianContainerd(program, client string) Runtime {
	return Runtime{Program: program, Client: client, config: containerd1}
}

//go:embed containerd-2.toml
var containerd2 string

// Containerd2 is a containerd 2 that stands beside the machine's own.
func Containerd2(program, client, shim string) Runtime {
	return Runtime{Program: program, Client: client, shim: shim, config: containerd2}
}

// Config returns the content of the runtime's configuration file.
func (r Runtime) Config(settings RuntimeSettings) ([]byte, error) {
	return render("containerd", r.config, struct {
		RuntimeSettings
		Shim string
	}{settings, r.shim})
}

// KubeletSettings are what a kubelet's configuration depends on.
type KubeletSettings struct {
	CACert     string
	CgroupRoot string
	DNS        string
	Address    string // to listen on
}

//go:embed kubelet.yaml
var kubelet string

// KubeletConfig returns the content of a kubelet's configuration file.
func KubeletConfig(settings KubeletSettings) ([]byte, error) {
	return render("kubelet", kubelet, settings)
}

// ProxySettings are what a kube-proxy's configuration depends on.
type ProxySettings struct {
	Node       string
	Kubeconfig string
	Pods       string // ranges, separated by commas
	Address    string // to listen on
}

//go:embed kube-proxy.yaml
var proxy string

// ProxyConfig returns the content of a kube-proxy's configuration file.
func ProxyConfig(settings ProxySettings) ([]byte, error) {
	return render("kube-proxy", proxy, settings)
}

func render(name, text string, data any) ([]byte, error) {
	t, err := template.New(name).Option("missingkey=error").Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read template of %s: %w", name, err)
	}
	var b bytes.Buffer
	if err := t.Execute(&b, data); err != nil {
		return nil, fmt.Errorf("fill in template of %s: %w", name, err)
	}
	return b.Bytes(), nil
}
