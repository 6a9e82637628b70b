package conflist

import (
	"encoding/json"
	"fmt"
	"net/netip"
)

// File is the conflist's name. Runtimes take the first by name.
const File = "10-poplin.conflist"

// Node is what the conflist says of this node.
type Node struct {
	// PodCIDRs are where pods get their addresses from, one range per family.
	PodCIDRs []netip.Prefix
	// Addresses are the node's own, the source of what it sends to its pods.
	Addresses []netip.Addr
	// MTU of the pods' links.
	MTU int
	// PolicySocket is where ADD asks whether policies hold for a pod; empty
	// where nobody enforces them here.
	PolicySocket string
}

// Config is what an administrator may choose.
type Config struct {
	// Dir is where the container runtime reads network configurations.
	Dir string
	// Name of the network.
	Name string
	// Capabilities the runtime may use with the poplin plugin.
	Capabilities map[string]bool
	// Plugins follow poplin in the chain, each as the runtime gets it.
	Plugins []json.RawMessage
	// ReadyFile tells STATUS, and so the runtime, that pods may start: it is
	// empty while they may, and holds the reason while they may not. Its
	// directory does not survive a reboot.
	ReadyFile string
}

type list struct {
	// Runtimes that know only cniVersion get 1.0.0 (containerd 1.6); others
	// choose the newest of cniVersions that they know.
	CNIVersion  string            `json:"cniVersion"`
	CNIVersions []string          `json:"cniVersions"`
	Name        string            `json:"name"`
	Plugins     []json.RawMessage `json:"plugins"`
}

type plugin struct {
	Type          string          `json:"type"`
	MTU           int             `json:"mtu"`
	NodeAddresses []netip.Addr    `json:"nodeAddresses,omitempty"`
	Capabilities  map[string]bool `json:"capabilities,omitempty"`
	ReadyFile     string          `json:"readyFile,omitempty"`
	Policy        *policy         `json:"policy,omitempty"`
	IPAM          ipam            `json:"ipam"`
}

type policy struct {
	Socket string `json:"socket"`
}

type ipam struct {
	Type   string  `json:"type"`
	Ranges [][]rng `json:"ranges"`
}

type rng struct {
	Subnet netip.Prefix `json:"subnet"`
}

// compile is the file's text: the same for the same node and configuration.
func compile(c Config, n Node) ([]byte, error) {
	p := plugin{Type: "poplin", MTU: n.MTU, NodeAddresses: n.Addresses, Capabilities: c.Capabilities, ReadyFile: c.ReadyFile, IPAM: ipam{Type: "host-local"}}
	if n.PolicySocket != "" {
		p.Policy = &policy{n.PolicySocket}
	}
	// A set per range: a pod gets one address of each.
	for _, cidr := range n.PodCIDRs {
		p.IPAM.Ranges = append(p.IPAM.Ranges, []rng{{cidr}})
	}
	first, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("write conflist: %w", err)
	}
	text, err := json.MarshalIndent(list{
		CNIVersion:  "1.0.0",
		CNIVersions: []string{"1.0.0", "1.1.0"},
		Name:        c.Name,
		Plugins:     append([]json.RawMessage{first}, c.Plugins...),
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("write conflist: %w", err)
	}
	return append(text, '\n'), nil
}
