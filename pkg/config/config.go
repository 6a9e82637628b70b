// Package config reads the one configuration file of the daemon. Input is its
// YAML text; output is a Config with every default filled in. It refuses an
// unknown key, a value of the wrong type and a value that cannot work, each
// by its path, its value and what to write instead. It does not read files,
// flags or the environment.
package config

import (
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// What the file calls itself.
const (
	APIVersion = "config.poplin.dev/v1alpha1"
	Kind       = "Configuration"
)

// How packets get to another node's pods.
const (
	ModeVXLAN  = "vxlan"
	ModeDirect = "direct"
)

// Who fills in checksums of encapsulated packets.
const (
	OffloadAuto = "auto"
	OffloadOn   = "on"
	OffloadOff  = "off"
)

// What to do where another program's firewall drops what is forwarded.
const (
	FirewallOpen   = "open"
	FirewallReport = "report"
)

// What a change of policies means for connections that exist.
const (
	ConnectionsDecided = "decide"
	ConnectionsKept    = "keep"
)

// Config is the file. What a field's comment says, docs/operate.md tells users:
// a test writes its table from here. A field that says nothing has the comment
// of the object that it is in. The tags hold for values that are given: oneof
// are the words allowed, range the numbers, beside the default; a change of a
// live key needs no restart.
type Config struct {
	// Required.
	APIVersion string `json:"apiVersion"`
	// Required.
	Kind string `json:"kind"`

	// `debug`, `info`, `warn` or `error`, in either case.
	LogLevel slog.Level `json:"logLevel" live:"true"`
	// `text` (key=value) or `json`, to standard error.
	LogFormat string `json:"logFormat" oneof:"text,json"`

	APIServer APIServer `json:"apiServer"`
	// The ranges that all nodes' pod ranges lie in. Given, a NodeNetwork outside
	// is refused and reported. Empty, any range is believed.
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs"`
	Overlay      Overlay        `json:"overlay"`
	Masquerade   Masquerade     `json:"masquerade"`

	// Where Docker, ufw or another program has set the policy of iptables' chain
	// FORWARD to DROP, pods would be cut off. `open`: accept rules for the pods'
	// ranges (`clusterCIDRs`, or the node's own) and the overlay device are kept
	// at the end of that chain, where rules that somebody wrote still come
	// first. `report`: nothing is changed. Either way, chains of other programs
	// that drop by policy are named in the log. iptables-legacy is not seen.
	ForeignFirewall string `json:"foreignFirewall" oneof:"open,report"`

	Services Services `json:"services"`
	Policy   Policy   `json:"policy"`
	Trace    Trace    `json:"trace"`

	CNI CNI `json:"cni"`
	// Where `/healthz` and `/readyz` are served; empty: nowhere. The DaemonSet's
	// probes name the same address.
	Health  Listener `json:"health"`
	Metrics Metrics  `json:"metrics"`
}

// APIServer says how to reach the API server without Services.
type APIServer struct {
	// `https://ADDRESS:PORT` of the API server, several in order of preference.
	// See [below](#reaching-the-api-server).
	Endpoints []string `json:"endpoints"`
}

// Overlay is the network between the nodes.
type Overlay struct {
	// `vxlan`: packets to other nodes' pods are encapsulated, except where
	// `directRouting` says otherwise. `direct`: there is no overlay device, pods
	// have the underlay's whole MTU, and every node must be in one network with
	// this one and offer direct routing too; those that do not are refused by
	// name. To change a running cluster without loss, switch `directRouting` on
	// everywhere first, then the mode node by node; and the same way back.
	Mode string `json:"mode" oneof:"vxlan,direct"`
	// Device that carries the overlay, out of those that hold the Node's
	// InternalIP: its name, `regexp:` with an expression for its name, `cidr:`
	// with the network its address is in, or `reach:` with an address to which
	// it leads. Empty: any.
	Interface string `json:"interface"`
	// MTU of the pods' links; 1280 is the least that IPv6 allows. 0: the
	// underlay device's, less 50 bytes (IPv4 underlay) or 70 (IPv6). Pods that
	// exist keep theirs.
	MTU int `json:"mtu" range:"1280..65535"`
	// VXLAN network identifier. Nodes with different ones do not reach each
	// other: change it on all of them at once.
	VNI int `json:"vni" range:"1..16777215"`
	// UDP port of the overlay; like `overlay.vni`.
	Port int `json:"port" range:"1..65535"`

	// Who fills in the checksums of encapsulated packets. `auto`: the network
	// card, unless a self-test at the daemon's start finds that they arrive
	// wrong, which some drivers are known for. `on` and `off` (in quotes): the
	// card, or the CPU, without a test. The CPU's work costs throughput.
	ChecksumOffload string `json:"checksumOffload" oneof:"auto,on,off"`
	// Send pods' packets to nodes of the same network as they are, without
	// encapsulation, where both nodes have this key on. The network between them
	// has to let packets with pods' addresses pass: some clouds drop them. Nodes
	// can be changed one by one.
	DirectRouting bool `json:"directRouting"`
}

// Masquerade is source address translation of traffic that leaves the cluster.
type Masquerade struct {
	// Give packets from pods to addresses outside the cluster the node's
	// address. `false` needs a network that routes the pod ranges.
	Enabled bool `json:"enabled"`
	// Destinations outside the cluster that see the pods' own addresses.
	ExcludeCIDRs []netip.Prefix `json:"excludeCIDRs"`
}

// Policy is who may talk to whom.
type Policy struct {
	// Enforce [NetworkPolicies and ClusterNetworkPolicies](policy.md) on the
	// nodes. `false` removes everything of it from the kernel.
	Enabled bool `json:"enabled"`
	// What a change of policies means for connections that exist. `decide`: those
	// that it forbids carry nothing any more, in neither direction. `keep`: they
	// go on until they end, and only new ones are refused.
	EstablishedConnections string `json:"establishedConnections" oneof:"decide,keep"`
	// Log packets that policies drop, with the policies that would have had to
	// allow them: [how](policy.md#packets-that-are-dropped). No connection
	// notices the change.
	LogDrops bool `json:"logDrops"`
	// Lines a second that the log gets about them at most; what is left out is
	// summed up in one more.
	LogDropsPerSecond int `json:"logDropsPerSecond" range:"1..100"`
}

// Trace is what poplinctl trace may look at.
type Trace struct {
	// Have [`poplinctl trace`](trace.md) look into pods: addresses, routes, who
	// listens. Needs `options/pod-inspection.yaml`, which gives the daemon's
	// container SYS_ADMIN ([security.md](security.md)).
	PodInspection bool `json:"podInspection" live:"true"`
}

// Services is the way to Services' endpoints.
type Services struct {
	// Serve [Services](services.md) on the nodes, in place of kube-proxy.
	// `false` removes everything of it from the kernel. While it is on, pods
	// [wait for their policies](policy.md#a-pods-first-packet) before they can
	// send.
	Enabled bool `json:"enabled"`
	// Where node ports and health-check ports answer: `primary`, the Node's
	// InternalIPs; or ranges in which addresses of the node lie, such as
	// `["192.0.2.0/24"]`. Never localhost.
	NodePortAddresses []string `json:"nodePortAddresses"`
	// Ranges in which `spec.externalIPs` of Services may lie. Whoever may write
	// Services could otherwise take any address for himself; others are refused,
	// with an Event.
	ExternalIPCIDRs []netip.Prefix `json:"externalIPCIDRs"`
	// Where load balancers ask for the node, as kube-proxy has it: `/healthz` is
	// 503 also on a Node that is being deleted or has the taint
	// `ToBeDeletedByClusterAutoscaler`, `/livez` is not; empty: nowhere.
	Healthz   Listener  `json:"healthz"`
	Conntrack Conntrack `json:"conntrack"`
}

// Primary are the Node's own addresses, as its status has them.
const Primary = "primary"

// Conntrack is the kernel's connection tracking; what is 0 is left alone.
type Conntrack struct {
	// Connections that the kernel tracks at most, per CPU, but at least `min`. A
	// larger limit of the node's stays.
	MaxPerCore int `json:"maxPerCore" range:"0.."`
	// See `maxPerCore`; both 0: the limit is left alone.
	Min int `json:"min" range:"0.."`

	// How long an idle TCP connection is remembered. For this and the following,
	// 0s leaves the node's value alone.
	TCPEstablishedTimeout Duration `json:"tcpEstablishedTimeout" range:"0.."`
	// The same, once the server has closed it.
	TCPCloseWaitTimeout Duration `json:"tcpCloseWaitTimeout" range:"0.."`
	// Let TCP packets out of the window pass, which would be left untranslated.
	TCPBeLiberal bool `json:"tcpBeLiberal"`
	// How long a UDP packet without an answer is remembered.
	UDPTimeout Duration `json:"udpTimeout" range:"0.."`
	// How long an idle UDP flow with answers is remembered.
	UDPStreamTimeout Duration `json:"udpStreamTimeout" range:"0.."`
}

// Duration is written as Go does: 90s, 1h30m.
type Duration time.Duration

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return errors.New("write a number and a unit, such as 90s or 24h")
	}
	*d = Duration(v)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// CNI is what the conflist says besides what the cluster decides.
type CNI struct {
	// Where the container runtime reads network configurations. The DaemonSet's
	// volume `cni-conf` has to name the same directory.
	ConfDir string `json:"confDir"`
	// Name of the network. The IPAM keeps its files under it: with a new name,
	// addresses of pods that exist may be given again, so drain the node first.
	Name string `json:"name"`
	// What the runtime may ask of the `poplin` plugin: `ips` (static addresses),
	// `portMappings` ([host ports](hostports.md)), `bandwidth`, and off by
	// default `ipRanges` and `mac`. Give `portMappings: false` where another
	// plugin of the chain serves host ports.
	Capabilities map[string]bool `json:"capabilities"`
	// Plugins that follow `poplin` in the chain, each as the runtime gets it,
	// for example `{type: tuning, sysctl: {...}}`. Their binaries have to be in
	// the runtime's directory; Poplin does not bring them.
	Plugins []json.RawMessage `json:"plugins"`
}

// Listener is an HTTP server's address.
type Listener struct {
	Address string `json:"address"`
}

// Metrics is where metrics are served. On an address that others can reach,
// they are encrypted and for those who may read them.
type Metrics struct {
	// Where `/metrics` is served; empty: nowhere. On any address but loopback
	// (`:9410` is all of the node's) only over TLS and to those who may read it:
	// [below](#metrics-for-prometheus).
	Address string `json:"address"`
	// Certificate for that, in PEM, with those of its issuers; empty: the daemon
	// signs one itself. Read again within a minute of a change.
	CertFile string `json:"certFile"`
	// Its key.
	KeyFile string `json:"keyFile"`
}

// Reachable says that others than this node's own processes reach an address
// to listen on.
func (m Metrics) Reachable() bool {
	host, _, err := net.SplitHostPort(m.Address)
	if err != nil {
		return false // empty: nowhere
	}
	addr, err := netip.ParseAddr(host)
	return err != nil || !addr.IsLoopback()
}

// Default is the configuration of an empty file.
func Default() Config {
	return Config{
		APIVersion: APIVersion,
		Kind:       Kind,
		LogLevel:   slog.LevelInfo,
		LogFormat:  "text",
		Overlay:    Overlay{Mode: ModeVXLAN, VNI: 1, Port: 8472, ChecksumOffload: OffloadAuto},
		Masquerade: Masquerade{Enabled: true},

		ForeignFirewall: FirewallOpen,

		Services: Services{
			Enabled: true, NodePortAddresses: []string{Primary}, Healthz: Listener{Address: ":10256"},
			Conntrack: Conntrack{
				MaxPerCore: 32768, Min: 131072,
				TCPEstablishedTimeout: Duration(24 * time.Hour), TCPCloseWaitTimeout: Duration(time.Hour),
			},
		},

		Policy: Policy{Enabled: true, EstablishedConnections: ConnectionsDecided, LogDropsPerSecond: 10},

		CNI:     CNI{ConfDir: "/etc/cni/net.d", Name: "poplin", Capabilities: map[string]bool{"ips": true, "portMappings": true, "bandwidth": true}},
		Health:  Listener{Address: "127.0.0.1:9411"},
		Metrics: Metrics{Address: "127.0.0.1:9410"},
	}
}
