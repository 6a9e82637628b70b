package config

import (
	"log/slog"
	"net/netip"
	"reflect"
	"strings"
	"testing"
)

const head = "apiVersion: config.poplin.dev/v1alpha1\nkind: Configuration\n"

func TestParseDefaults(t *testing.T) {
	for _, text := range []string{head, head + "overlay:\nlogLevel: null\n"} {
		c, err := Parse([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(c, Default()) {
			t.Errorf("%q: got %+v, want the defaults", text, c)
		}
	}
}

func TestParse(t *testing.T) {
	c, err := Parse([]byte(head + `
logLevel: debug
logFormat: json
apiServer: {endpoints: ["https://10.0.0.1:6443", "https://[fd00::1]"]}
clusterCIDRs: [10.244.0.0/16, "fd00:10:244::/56"]
overlay: {mode: direct, interface: eth1, mtu: 1400, vni: 4096, port: 4789, checksumOffload: "off"}
masquerade: {enabled: false, excludeCIDRs: [192.168.0.0/16]}
cni:
  confDir: /etc/cni/other
  name: cbr0
  capabilities: {ips: true, ipRanges: true}
  plugins:
  - {type: portmap, capabilities: {portMappings: true}}
health: {address: ""}
metrics: {address: "[::1]:9000"}
`))
	if err != nil {
		t.Fatal(err)
	}
	want := Default()
	want.LogLevel, want.LogFormat = slog.LevelDebug, "json"
	want.APIServer.Endpoints = []string{"https://10.0.0.1:6443", "https://[fd00::1]"}
	want.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:10:244::/56")}
	want.Overlay = Overlay{Mode: ModeDirect, Interface: "eth1", MTU: 1400, VNI: 4096, Port: 4789, ChecksumOffload: OffloadOff}
	want.Masquerade = Masquerade{ExcludeCIDRs: []netip.Prefix{netip.MustParsePrefix("192.168.0.0/16")}}
	want.CNI.ConfDir, want.CNI.Name, want.CNI.Capabilities = "/etc/cni/other", "cbr0", map[string]bool{"ips": true, "ipRanges": true}
	want.CNI.Plugins = c.CNI.Plugins
	want.Health.Address, want.Metrics.Address = "", "[::1]:9000"
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got %+v\nwant %+v", c, want)
	}
	if got := string(c.CNI.Plugins[0]); got != `{"capabilities":{"portMappings":true},"type":"portmap"}` {
		t.Errorf("plugin: %s", got)
	}
}

func TestParseRefuses(t *testing.T) {
	tests := []struct{ text, want string }{
		{"", `apiVersion: "" is not understood: write config.poplin.dev/v1alpha1`},
		{"- 1", "the file: [1] is no object"},
		{"a: [", "read YAML"},
		{head + "kind: Other", `already set`},
		{head + "overlay: {mut: 1400}", `overlay.mut: unknown key; did you mean "mtu"?`},
		{head + "loglevel: debug", `loglevel: unknown key; did you mean "logLevel"?`},
		{head + "quux: 1", "quux: unknown key; known here: apiVersion, kind, logLevel"},
		{head + "overlay: 3", "overlay: 3 is no object: expected keys mode, interface, mtu, vni, port, checksumOffload"},
		{head + "overlay: {mode: host-gw}", `overlay.mode: "host-gw" is not understood: write vxlan or direct`},
		{head + "overlay: {checksumOffload: off}", "overlay.checksumOffload: false is no string: put it in quotes"},
		{head + "overlay: {checksumOffload: never}", `overlay.checksumOffload: "never" is not understood: write auto, on or off`},
		{head + "overlay: {mtu: big}", "overlay.mtu: big is no whole number"},
		{head + "overlay: {mtu: 1400.5}", "overlay.mtu: 1400.5 is no whole number"},
		{head + "overlay: {mtu: 900}", "overlay.mtu: 900 is less than 1280: the default is 0"},
		{head + "overlay: {vni: 0}", "overlay.vni: 0 is less than 1"},
		{head + "overlay: {port: 70000}", "overlay.port: 70000 is more than 65535: the default is 8472"},
		{head + "services: {conntrack: {min: -1}}", "services.conntrack.min: -1 is less than 0"},
		{head + "services: {conntrack: {udpTimeout: -1s}}", `services.conntrack.udpTimeout: "-1s" is less than 0: the default is "0s"`},
		{head + "overlay: {interface: a-name-that-is-too-long}", "overlay.interface:"},
		{head + "overlay: {interface: 7}", "overlay.interface: 7 is no string"},
		{head + "overlay: {interface: 'regexp:('}", "regular expression"},
		{head + "overlay: {interface: 'cidr:10.0.0.0'}", "holds no network"},
		{head + "overlay: {interface: 'reach:host'}", "holds no address"},
		{head + "overlay: {interface: 'name:eth0'}", "is no name of a network device"},
		{head + "foreignFirewall: shut", `foreignFirewall: "shut" is not understood: write open or report`},
		{head + "masquerade: {enabled: maybe}", "masquerade.enabled: maybe is neither true nor false"},
		{head + "masquerade: {excludeCIDRs: [10.0.0.1/8]}", `masquerade.excludeCIDRs[0]: "10.0.0.1/8" has bits set past its prefix length: write 10.0.0.0/8`},
		{head + "clusterCIDRs: [10.244.0.0]", `clusterCIDRs[0]: "10.244.0.0" is not understood`},
		{head + "clusterCIDRs: 10.244.0.0/16", "clusterCIDRs: 10.244.0.0/16 is no list"},
		{head + "clusterCIDRs: [\"::ffff:10.0.0.0/104\"]", "clusterCIDRs[0]"},
		{head + "clusterCIDRs: [~]", "clusterCIDRs[0]: is empty"},
		{head + "logLevel: loud", `logLevel: "loud" is not understood`},
		{head + "logLevel: 3", "logLevel: 3 is no string"},
		{head + "logFormat: xml", `logFormat: "xml" is not understood: write text or json`},
		{head + "apiServer: {endpoints: [10.0.0.1:6443]}", "apiServer.endpoints[0]:"},
		{head + "apiServer: {endpoints: ['http://10.0.0.1']}", "is no https URL"},
		{head + "apiServer: {endpoints: ['https://10.0.0.1/api']}", "has more than an address and a port"},
		{head + "apiServer: {endpoints: ['https://10.0.0.1:0']}", "has no valid port"},
		{head + "cni: {confDir: etc}", `cni.confDir: "etc" is no absolute path`},
		{head + "cni: {name: 'a/b'}", `cni.name: "a/b" is no CNI network name`},
		{head + "cni: {plugins: [portmap]}", `cni.plugins[0]: "portmap" is no object`},
		{head + "cni: {plugins: [{}]}", `cni.plugins[0].type: "" is no plugin`},
		{head + "cni: {plugins: [{type: portmap, cniVersion: 9}]}", `cni.plugins[0]: no container runtime could read it: json: cannot unmarshal number`},
		{head + "cni: {plugins: [{type: ../sh}]}", `cni.plugins[0].type: "../sh" is no plugin`},
		{head + "cni: {plugins: [{type: poplin}]}", "poplin is always first"},
		{head + "cni: {capabilities: {ips: 1}}", "cni.capabilities.ips: 1 is neither true nor false"},
		{head + "cni: {capabilities: {portMapping: true}}", "cni.capabilities.portMapping: unknown capability"},
		{head + "cni: {plugins: [{type: portmap, type: x}]}", "already set"},
		{head + "health: {address: localhost}", `health.address: "localhost" is no address and port`},
		{head + "metrics: {address: 'localhost:80'}", `metrics.address: "localhost:80" is no address and port`},
		{head + "metrics: {address: '127.0.0.1:9411'}", "is health.address too"},
		{head + "metrics: {address: ':9410', certFile: /tls.crt}", "metrics.keyFile: a certificate has certFile and keyFile"},
		{head + "metrics: {certFile: /tls.crt, keyFile: /tls.key}", "metrics.certFile: 127.0.0.1:9410 is for this node alone"},
	}
	for _, tt := range tests {
		_, err := Parse([]byte(tt.text))
		if err == nil {
			t.Errorf("%q: accepted", tt.text)
		} else if !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %q, want %q in it", tt.text, err, tt.want)
		}
	}
	// Every mistake is told at once.
	_, err := Parse([]byte(head + "overlay: {mtu: 1}\nhealth: {address: x}"))
	if err == nil || strings.Count(err.Error(), "\n") != 1 {
		t.Errorf("two mistakes: %v", err)
	}
}
