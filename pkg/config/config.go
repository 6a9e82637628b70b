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

// Config is the file. docs/configuration.md says what each key means; a test
// keeps the two in step.
type Config struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`

	LogLevel  slog.Level `json:"logLevel"`
	LogFormat string     `json:"logFormat"`

	APIServer    APIServer      `json:"apiServer"`
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs"`
	Overlay      Overlay        `json:"overlay"`
	Masquerade   Masquerade     `json:"masquerade"`

	ForeignFirewall string `json:"foreignFirewall"`

	Services Services `json:"services"`
	Policy   Policy   `json:"policy"`
	Trace    Trace    `json:"trace"`

	CNI     CNI      `json:"cni"`
	Health  Listener `json:"health"`
	Metrics Metrics  `json:"metrics"`
}

// APIServer says how to reach the API server without Services.
type APIServer struct {
	Endpoints []string `json:"endpoints"`
}

// Overlay is the network between the nodes.
type Overlay struct {
	Mode      string `json:"mode"`
	Interface string `json:"interface"`
	MTU       int    `json:"mtu"`
	VNI       int    `json:"vni"`
	Port      int    `json:"port"`

	ChecksumOffload string `json:"checksumOffload"`
	DirectRouting   bool   `json:"directRouting"`
}

// Masquerade is source address translation of traffic that leaves the cluster.
type Masquerade struct {
	Enabled      bool           `json:"enabled"`
	ExcludeCIDRs []netip.Prefix `json:"excludeCIDRs"`
}

// Policy is who may talk to whom.
type Policy struct {
	Enabled bool `json:"enabled"`
	// LogDrops logs packets that are dropped, in so many lines a second.
	LogDrops          bool `json:"logDrops"`
	LogDropsPerSecond int  `json:"logDropsPerSecond"`
}

// Trace is what poplinctl trace may look at.
type Trace struct {
	// PodInspection has poplind query enter pods' network namespaces.
	PodInspection bool `json:"podInspection"`
}

// Services is the way to Services' endpoints.
type Services struct {
	Enabled bool `json:"enabled"`
	// NodePortAddresses are ranges of addresses, or Primary alone.
	NodePortAddresses []string       `json:"nodePortAddresses"`
	ExternalIPCIDRs   []netip.Prefix `json:"externalIPCIDRs"`
	Healthz           Listener       `json:"healthz"`
	Conntrack         Conntrack      `json:"conntrack"`
}

// Primary are the Node's own addresses, as its status has them.
const Primary = "primary"

// Conntrack is the kernel's connection tracking; what is 0 is left alone.
type Conntrack struct {
	MaxPerCore int `json:"maxPerCore"`
	Min        int `json:"min"`

	TCPEstablishedTimeout Duration `json:"tcpEstablishedTimeout"`
	TCPCloseWaitTimeout   Duration `json:"tcpCloseWaitTimeout"`
	TCPBeLiberal          bool     `json:"tcpBeLiberal"`
	UDPTimeout            Duration `json:"udpTimeout"`
	UDPStreamTimeout      Duration `json:"udpStreamTimeout"`
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
	ConfDir      string            `json:"confDir"`
	Name         string            `json:"name"`
	Capabilities map[string]bool   `json:"capabilities"`
	Plugins      []json.RawMessage `json:"plugins"`
}

// Listener is an HTTP server's address.
type Listener struct {
	Address string `json:"address"`
}

// Metrics is where metrics are served. On an address that others can reach,
// they are encrypted and for those who may read them.
type Metrics struct {
	Address string `json:"address"`
	// CertFile and KeyFile are a certificate; without them, the daemon makes
	// one for itself.
	CertFile string `json:"certFile"`
	KeyFile  string `json:"keyFile"`
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

		Policy: Policy{Enabled: true, LogDropsPerSecond: 10},

		CNI:     CNI{ConfDir: "/etc/cni/net.d", Name: "poplin", Capabilities: map[string]bool{"ips": true, "portMappings": true, "bandwidth": true}},
		Health:  Listener{Address: "127.0.0.1:9411"},
		Metrics: Metrics{Address: "127.0.0.1:9410"},
	}
}
