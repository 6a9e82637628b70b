// Package conf reads a network configuration of type poplin. Inputs are the
// JSON on the plugin's stdin and CNI_ARGS; output is a Conf. It refuses a key
// it does not know and values that contradict each other, with a message
// that names the key, the value and the way out.
package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
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
	DNS           types.DNS
	Pod           Pod
}

// Pod is what CNI_ARGS says of the Kubernetes pod, if it is one.
type Pod struct{ Namespace, Name string }

const (
	// minMTU is the kernel's for Ethernet-like devices.
	minMTU = 68
	maxMTU = 65535
)

// hostLocalCapabilities is what the IPAM in this process can do with
// runtimeConfig.
var hostLocalCapabilities = []string{"ips", "ipRanges"}

// HostLocal is the ipam.type that is served in process.
const HostLocal = "host-local"

// Parse reads stdin and args (CNI_ARGS).
func Parse(stdin []byte, args string) (Conf, error) {
	var (
		c             Conf
		kind          string
		ipam          json.RawMessage
		nodeAddresses []string
		capabilities  map[string]bool
		runtimeConfig map[string]json.RawMessage
	)
	fields := strict.Fields{
		"cniVersion": &c.CNIVersion, "name": &c.Name, "type": &kind,
		"mtu": &c.MTU, "ipam": &ipam, "nodeAddresses": &nodeAddresses, "dns": &c.DNS,
		"capabilities": &capabilities, "runtimeConfig": &runtimeConfig,
		"args": nil, "prevResult": nil, "cni.dev/": nil,
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
		if err := checkCapabilities(capabilities, runtimeConfig); err != nil {
			return Conf{}, err
		}
	}
	if c.Pod, err = parseArgs(args); err != nil {
		return Conf{}, err
	}
	return c, nil
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

// checkCapabilities refuses promises nobody keeps: a runtime hands over, say,
// port mappings only where a plugin declares them, and a pod would believe
// to have them.
func checkCapabilities(declared map[string]bool, given map[string]json.RawMessage) error {
	for key, on := range declared {
		if on && !slices.Contains(hostLocalCapabilities, key) {
			return fmt.Errorf("capabilities.%s: true, but this plugin cannot do it; remove it (known here: %s)", key, strings.Join(hostLocalCapabilities, ", "))
		}
	}
	for key, value := range given {
		if !slices.Contains(hostLocalCapabilities, key) {
			return fmt.Errorf("runtimeConfig.%s: unknown key with value %s; remove it (known here: %s)", key, strict.Shorten(value), strings.Join(hostLocalCapabilities, ", "))
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
	return Pod{Namespace: values["K8S_POD_NAMESPACE"], Name: values["K8S_POD_NAME"]}, nil
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
