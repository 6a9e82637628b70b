// Package control knows the arguments of a control plane's components. In:
// addresses, ranges, and where certificates are. Out: command lines without the
// program. It refuses nothing: the components do.
package control

import (
	"fmt"

	"poplin.dev/poplin/test/cluster/pki"
)

// Spec is one control plane, all of it on one node.
type Spec struct {
	Data     string // directory of etcd
	Address  string // of the API server
	Listen   string // "0.0.0.0" or "::"
	Port     int
	Pods     string // ranges, separated by commas
	Services string // ranges, separated by commas
	PKI      func(file string) string
}

const (
	etcdURL  = "http://127.0.0.1:2379"
	etcdPeer = "http://127.0.0.1:2380"
)

// Etcd keeps its data unsynced: the cluster goes with the machine's boot anyway.
func (s Spec) Etcd() []string {
	return []string{
		"--data-dir=" + s.Data,
		"--listen-client-urls=" + etcdURL, "--advertise-client-urls=" + etcdURL, "--listen-peer-urls=" + etcdPeer,
		"--unsafe-no-fsync", "--log-level=warn",
	}
}

// APIServer authorises nodes and RBAC.
func (s Spec) APIServer() []string {
	return []string{
		"--v=2", "--etcd-servers=" + etcdURL, "--bind-address=" + s.Listen, fmt.Sprintf("--secure-port=%d", s.Port),
		"--advertise-address=" + s.Address,
		"--service-cluster-ip-range=" + s.Services,
		"--allow-privileged=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + s.PKI(pki.CACert),
		"--tls-cert-file=" + s.PKI(pki.Certificate("apiserver")), "--tls-private-key-file=" + s.PKI(pki.Key("apiserver")),
		"--kubelet-client-certificate=" + s.PKI(pki.Certificate("apiserver-kubelet-client")),
		"--kubelet-client-key=" + s.PKI(pki.Key("apiserver-kubelet-client")),
		"--kubelet-preferred-address-types=InternalIP,Hostname",
		"--service-account-key-file=" + s.PKI(pki.ServiceAccountPublic),
		"--service-account-signing-key-file=" + s.PKI(pki.ServiceAccountKey),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--requestheader-client-ca-file=" + s.PKI(pki.FrontProxyCACert),
		"--requestheader-allowed-names=front-proxy-client", "--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--requestheader-group-headers=X-Remote-Group", "--requestheader-username-headers=X-Remote-User",
		"--proxy-client-cert-file=" + s.PKI(pki.Certificate("front-proxy-client")),
		"--proxy-client-key-file=" + s.PKI(pki.Key("front-proxy-client")),
		"--enable-aggregator-routing=true", "--profiling=false",
	}
}

// client are the arguments of a component that is a client of the API server
// and asks it whom to serve.
func (s Spec) client(kubeconfig string) []string {
	path := s.PKI(kubeconfig)
	return []string{"--v=2", "--kubeconfig=" + path, "--authentication-kubeconfig=" + path, "--authorization-kubeconfig=" + path,
		"--leader-elect=false", "--kube-api-qps=100", "--kube-api-burst=200"}
}

// ControllerManager gives nodes their podCIDRs.
func (s Spec) ControllerManager() []string {
	return append(s.client(pki.ControllerKubeconfig),
		"--use-service-account-credentials=true",
		"--allocate-node-cidrs=true", "--cluster-cidr="+s.Pods, "--service-cluster-ip-range="+s.Services,
		"--service-account-private-key-file="+s.PKI(pki.ServiceAccountKey), "--root-ca-file="+s.PKI(pki.CACert),
		"--cluster-signing-cert-file="+s.PKI(pki.CACert), "--cluster-signing-key-file="+s.PKI(pki.CAKey),
		"--client-ca-file="+s.PKI(pki.CACert), "--requestheader-client-ca-file="+s.PKI(pki.FrontProxyCACert))
}

// Scheduler is alone, hence elects no leader.
func (s Spec) Scheduler() []string { return s.client(pki.SchedulerKubeconfig) }
