// Package conf reads a network configuration of type poplin. Inputs are the
// JSON on the plugin's stdin and CNI_ARGS; output is a Conf. It refuses a key
// it does not know and values that contradict each other, with a message
// that names the key, the value and the way out.
package conf

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"poplin.dev/poplin/plugins/strict"
)

// Conf is a network configuration as far as the main plugin reads it: the
// rest of ipam is the IPAM plugin's to read.
type Conf struct {
	CNIVersion, Name string
	// MTU of the pod's link; 0: not given.
	MTU int
	// IPAM is ipam.type.
	IPAM string
	// NodeAddresses has at most one address of each family: the source of
	// what the node itself sends to the pod.
	NodeAddresses []netip.Addr
	// MAC of the pod's end of the link, if the runtime wants one.
	MAC net.HardwareAddr
	// ReadyFile is there while the node's network is whole; empty: nobody says.
	ReadyFile string
	DNS       types.DNS
	Pod       Pod
	// PortMappings and Bandwidth are the runtime's, as it gives them.
	PortMappings, Bandwidth json.RawMessage
	// StateDir holds what outlives a reboot.
	StateDir string
	// PolicySocket is where a daemon says whether policies hold for a pod;
	// empty: nobody enforces any.
	PolicySocket string
}

// Pod is what CNI_ARGS says of the Kubernetes pod, if it is one.
type Pod struct{ Namespace, Name, UID string }

const (
	// minMTU is the kernel's for Ethernet-like devices.
	minMTU = 68
	maxMTU = 65535
)

// capabilities is what this plugin and the IPAM in this process can do with
// runtimeConfig.
var capabilities = []string{"ips", "ipRanges", "mac", "portMappings", "bandwidth"}

// HostLocal is the ipam.type that is served in process.
const HostLocal = "host-local"

// Parse reads stdin and args (CNI_ARGS).
func Parse(stdin []byte, args string) (Conf, error) {
	var (
		c             Conf
		kind          string
		ipam, policy  json.RawMessage
		nodeAddresses []string
		declared      map[string]bool
		runtimeConfig map[string]json.RawMessage
	)
	fields := strict.Fields{
		"cniVersion": &c.CNIVersion, "name": &c.Name, "type": &kind,
		"mtu": &c.MTU, "ipam": &ipam, "nodeAddresses": &nodeAddresses, "dns": &c.DNS,
		"capabilities": &declared, "runtimeConfig": &runtimeConfig, "readyFile": &c.ReadyFile,
		"policy": &policy, "stateDir": nil, "args": nil, "prevResult": nil, "cni.dev/": nil,
	}
	err := strict.Object(stdin, "", fields)
	if err != nil {
		return Conf{}, err
	}
	if c.IPAM, err = ipamType(ipam); err != nil {
		return Conf{}, err
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		return Conf{}, fmt.Errorf("mtu: %d is outside %d..%d bytes; remove the key to use the MTU of the default route's device", c.MTU, minMTU, maxMTU)
	}
	if c.NodeAddresses, err = parseNodeAddresses(nodeAddresses); err != nil {
		return Conf{}, err
	}
	if c.IPAM == HostLocal {
		if err := checkCapabilities(declared, runtimeConfig); err != nil {
			return Conf{}, err
		}
	}
	if c.MAC, err = parseMAC(runtimeConfig["mac"]); err != nil {
		return Conf{}, err
	}
	c.PortMappings, c.Bandwidth = runtimeConfig["portMappings"], runtimeConfig["bandwidth"]
	if c.StateDir, err = StateDir(stdin); err != nil {
		return Conf{}, err
	}
	if c.ReadyFile != "" && !filepath.IsAbs(c.ReadyFile) {
		return Conf{}, fmt.Errorf("readyFile: %q is relative to nothing; give an absolute path", c.ReadyFile)
	}
	if c.PolicySocket, err = parsePolicy(policy); err != nil {
		return Conf{}, err
	}
	if c.Pod, err = parseArgs(args); err != nil {
		return Conf{}, err
	}
	return c, nil
}

func parsePolicy(raw json.RawMessage) (socket string, err error) {
	if len(raw) == 0 {
		return "", nil
	}
	if err := strict.Object(raw, "policy", strict.Fields{"socket": &socket}); err != nil {
		return "", err
	}
	if !filepath.IsAbs(socket) {
		return "", fmt.Errorf("policy.socket: %q is relative to nothing; give an absolute path, or remove the key policy", socket)
	}
	return socket, nil
}

// IPAMType is ipam.type, for calls that must succeed although the rest has
// become invalid.
func IPAMType(stdin []byte) (string, error) {
	var outer struct {
		IPAM json.RawMessage `json:"ipam"`
	}
	if err := json.Unmarshal(stdin, &outer); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	return ipamType(outer.IPAM)
}

// StateDir is stateDir, likewise.
func StateDir(stdin []byte) (string, error) {
	outer := struct {
		StateDir string `json:"stateDir"`
	}{"/var/lib/poplin"}
	if err := json.Unmarshal(stdin, &outer); err != nil {
		return "", fmt.Errorf("stateDir: %w", err)
	}
	if !filepath.IsAbs(outer.StateDir) {
		return "", fmt.Errorf("stateDir: %q is relative to nothing; give an absolute path", outer.StateDir)
	}
	return outer.StateDir, nil
}

func ipamType(ipam json.RawMessage) (string, error) {
	var object struct {
		Type string `json:"type"`
	}
	if len(ipam) == 0 {
		return "", errors.New("ipam: missing; without it a pod has no address; give {\"type\": \"host-local\", \"ranges\": [[{\"subnet\": ...}]]}")
	}
	if err := json.Unmarshal(ipam, &object); err != nil {
		return "", fmt.Errorf("ipam: want a JSON object with a type, have %s", strict.Shorten(ipam))
	}
	if t := object.Type; t == "" || strings.ContainsRune(t, '/') {
		return "", fmt.Errorf("ipam.type: %q names no plugin; use host-local, or the name of an IPAM plugin in CNI_PATH", t)
	}
	return object.Type, nil
}

func parseNodeAddresses(list []string) (addrs []netip.Addr, err error) {
	for i, s := range list {
		a, err := netip.ParseAddr(s)
		switch {
		case err != nil || a.Zone() != "" || a.Is4In6():
			return nil, fmt.Errorf("nodeAddresses[%d]: %q is no IP address", i, s)
		case a.IsUnspecified() || a.IsLoopback() || a.IsMulticast():
			return nil, fmt.Errorf("nodeAddresses[%d]: %s is no address of a node that pods could answer to", i, s)
		case slices.ContainsFunc(addrs, func(o netip.Addr) bool { return o.Is4() == a.Is4() }):
			return nil, fmt.Errorf("nodeAddresses[%d]: %s is the second of its family; keep one IPv4 and one IPv6 address at most", i, s)
		}
		addrs = append(addrs, a)
	}
	return addrs, nil
}

// parseMAC refuses what the kernel, or a switch on the way, would.
func parseMAC(raw json.RawMessage) (net.HardwareAddr, error) {
	var text string
	if len(raw) == 0 {
		return nil, nil
	}
	if err := json.Unmarshal(raw, &text); err != nil {
		return nil, fmt.Errorf("runtimeConfig.mac: cannot use %s: %w", strict.Shorten(raw), err)
	}
	if text == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(text)
	const multicast = 1
	if err != nil || len(mac) != 6 || mac[0]&multicast != 0 || bytes.Equal(mac, make([]byte, 6)) {
		return nil, fmt.Errorf("runtimeConfig.mac: %q is no unicast MAC address of 48 bits, such as 02:00:5e:10:00:01", text)
	}
	return mac, nil
}

// checkCapabilities refuses promises nobody keeps: a runtime hands over, say,
// port mappings only where a plugin declares them, and a pod would believe
// to have them.
func checkCapabilities(declared map[string]bool, given map[string]json.RawMessage) error {
	for key, on := range declared {
		if on && !slices.Contains(capabilities, key) {
			return fmt.Errorf("capabilities.%s: true, but this plugin cannot do it; remove it (known here: %s)", key, strings.Join(capabilities, ", "))
		}
	}
	for key, value := range given {
		if !slices.Contains(capabilities, key) {
			return fmt.Errorf("runtimeConfig.%s: unknown key with value %s; remove it (known here: %s)", key, strict.Shorten(value), strings.Join(capabilities, ", "))
		}
	}
	return nil
}

// knownArgs is the keys of CNI_ARGS that are read, by this plugin or its IPAM,
// or that every Kubernetes runtime sets.
var knownArgs = []string{
	"IgnoreUnknown", "IP", "K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_INFRA_CONTAINER_ID", "K8S_POD_UID",
}

func parseArgs(args string) (Pod, error) {
	values := map[string]string{}
	for pair := range strings.SplitSeq(args, ";") {
		key, value, ok := strings.Cut(pair, "=")
		if !ok && pair != "" {
			return Pod{}, &ArgsError{fmt.Sprintf("CNI_ARGS: %q is no key=value pair", pair)}
		}
		if pair != "" {
			values[key] = value
		}
	}
	ignore := strings.ToLower(values["IgnoreUnknown"])
	for key, value := range values {
		if !slices.Contains(knownArgs, key) && ignore != "1" && ignore != "true" {
			return Pod{}, &ArgsError{fmt.Sprintf("CNI_ARGS: unknown key %s with value %q; remove it, or add IgnoreUnknown=1", key, value)}
		}
	}
	return Pod{Namespace: values["K8S_POD_NAMESPACE"], Name: values["K8S_POD_NAME"], UID: values["K8S_POD_UID"]}, nil
}

// ArgsError is a mistake in CNI_ARGS rather than in the configuration.
type ArgsError struct{ text string }

func (e *ArgsError) Error() string { return e.text }

// PrevResult reads the prevResult that a runtime adds for CHECK; nil if there
// is none.
func PrevResult(stdin []byte) (*types100.Result, error) {
	var outer struct {
		CNIVersion string          `json:"cniVersion"`
		PrevResult json.RawMessage `json:"prevResult"`
	}
	if err := json.Unmarshal(stdin, &outer); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if len(outer.PrevResult) == 0 {
		return nil, nil
	}
	raw, err := create.Create(outer.CNIVersion, outer.PrevResult)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	result, err := types100.GetResult(raw)
	if err != nil {
		return nil, fmt.Errorf("prevResult: %w", err)
	}
	return result, nil
}
