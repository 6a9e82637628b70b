package conf

import (
	"fmt"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	c, err := Parse([]byte(`{
		"cniVersion": "1.1.0", "name": "pods", "type": "poplin", "mtu": 1450,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.1.0/24"}]]},
		"nodeAddresses": ["192.0.2.1", "2001:db8::1"],
		"dns": {"nameservers": ["10.96.0.10"]},
		"capabilities": {"ips": true, "portMappings": false},
		"runtimeConfig": {"ips": ["10.244.1.7"], "mac": "02:00:5E:10:00:01"}, "readyFile": "/run/ready", "policy": {"socket": "/run/x.sock"},
		"args": {"labels": {"app": "web"}},
		"cni.dev/valid-attachments": [], "prevResult": {}
	}`), "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=7;FUTURE=x")
	if err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(c), "{1.1.0 pods 1450 host-local [192.0.2.1 2001:db8::1] 02:00:5e:10:00:01 /run/ready {[10.96.0.10]  [] []} {default web-0 7} [] [] /var/lib/poplin /run/x.sock}"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	const ipam = `"ipam":{"type":"host-local"}`
	for _, row := range []struct{ conf, args, want string }{
		{`{` + ipam + `,"mut":1450}`, "", "mut: unknown key with value 1450; remove it, or use one of: args, capabilities,"},
		{`{` + ipam + `,"ipMasq":true}`, "", "ipMasq: unknown key with value true"},
		{`{` + ipam + `,"mtu":"1450"}`, "", `mtu: cannot use "1450"`},
		{`{` + ipam + `,"mtu":67}`, "", "mtu: 67 is outside 68..65535"},
		{`{` + ipam + `,"mtu":-1}`, "", "mtu: -1"},
		{`{` + ipam + `,"mtu":65536}`, "", "mtu: 65536"},
		{`{}`, "", "ipam: missing"},
		{`{"ipam":{}}`, "", `ipam.type: "" names no plugin`},
		{`{"ipam":"host-local"}`, "", `ipam: want a JSON object with a type, have "host-local"`},
		{`{"ipam":{"type":"../../bin/sh"}}`, "", `ipam.type: "../../bin/sh" names no plugin`},
		{`{` + ipam + `,"nodeAddresses":["node-1"]}`, "", `nodeAddresses[0]: "node-1" is no IP address`},
		{`{` + ipam + `,"nodeAddresses":["127.0.0.1"]}`, "", "nodeAddresses[0]: 127.0.0.1 is no address of a node"},
		{`{` + ipam + `,"nodeAddresses":["192.0.2.1","192.0.2.2"]}`, "", "nodeAddresses[1]: 192.0.2.2 is the second of its family"},
		{`{` + ipam + `,"nodeAddresses":["fe80::1%eth0"]}`, "", "is no IP address"},
		{`{` + ipam + `,"capabilities":{"infinibandGUID":true}}`, "", "capabilities.infinibandGUID: true, but"},
		{`{` + ipam + `,"runtimeConfig":{"dns":"x"}}`, "", `runtimeConfig.dns: unknown key with value "x"`},
		{`{` + ipam + `,"runtimeConfig":{"mac":"x"}}`, "", `runtimeConfig.mac: "x" is no unicast MAC address`},
		{`{` + ipam + `,"runtimeConfig":{"mac":7}}`, "", `runtimeConfig.mac: cannot use 7`},
		{`{` + ipam + `,"runtimeConfig":{"mac":"01:00:5e:00:00:01"}}`, "", `runtimeConfig.mac: "01:00:5e:00:00:01" is no unicast MAC address`},
		{`{` + ipam + `,"runtimeConfig":{"mac":"02:00:5e:10:00:00:00:01"}}`, "", `is no unicast MAC address of 48 bits`},
		{`{` + ipam + `,"readyFile":"ready"}`, "", `readyFile: "ready" is relative`},
		{`{` + ipam + `,"stateDir":"var"}`, "", `stateDir: "var" is relative to nothing`},
		{`{` + ipam + `,"policy":{"socket":"poplind.sock"}}`, "", `policy.socket: "poplind.sock" is relative to nothing`},
		{`{` + ipam + `,"policy":{}}`, "", `policy.socket: "" is relative to nothing`},
		{`{` + ipam + `,"policy":{"sockets":[]}}`, "", "policy.sockets: unknown key with value []"},
		{`{` + ipam + `}`, "MAC=1", "CNI_ARGS: unknown key MAC"},
		{`{` + ipam + `}`, "IgnoreUnknown", `CNI_ARGS: "IgnoreUnknown" is no key=value pair`},
	} {
		if _, err := Parse([]byte(row.conf), row.args); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s %s: %v, want %q", row.conf, row.args, err, row.want)
		}
	}
}

func TestOtherIPAMHasItsOwnCapabilities(t *testing.T) {
	const conf = `{"ipam":{"type":"whereabouts","range":"10.0.0.0/24"},"capabilities":{"podAnnotations":true},"runtimeConfig":{"podAnnotations":{}}}`
	if _, err := Parse([]byte(conf), ""); err != nil {
		t.Error(err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"cniVersion":"1.0.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"host-local"},"nodeAddresses":["192.0.2.1"]}`, "IgnoreUnknown=1;IP=10.0.0.1")
	f.Add(`{"ipam":{"type":"x"},"prevResult":{"cniVersion":"1.0.0","ips":[{"address":"10.0.0.1/32","interface":7}]}}`, "")
	f.Add(`[]`, ";=;")
	f.Fuzz(func(t *testing.T, stdin, args string) {
		c, err := Parse([]byte(stdin), args)
		if err == nil && (c.IPAM == "" || strings.ContainsRune(c.IPAM, '/') || c.MTU < 0 || c.MTU > maxMTU || len(c.NodeAddresses) > 2) {
			t.Fatalf("accepted %+v", c)
		}
		if kind, e := IPAMType([]byte(stdin)); err == nil && (e != nil || kind != c.IPAM) {
			t.Fatalf("ADD's IPAM is %q, DEL's %q (%v)", c.IPAM, kind, e)
		}
		_, _ = PrevResult([]byte(stdin))
	})
}
