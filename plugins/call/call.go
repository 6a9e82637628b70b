// Package call reads what a container runtime wants of a plugin. Inputs are
// the environment and stdin of one execution; output is a Call. It refuses
// what the CNI specification does: a variable that is missing or malformed, a
// configuration without a name, a version that is not spoken.
//
// The CNI library's package skel does the same. It compiles regular
// expressions at start, which every pod of a node would wait and pay for.
package call

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"
)

// Versions of the CNI specification that are spoken.
var Versions = []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"}

// Call is one execution of a plugin.
type Call struct {
	Command, CNIVersion              string
	ContainerID, Netns, IfName, Path string
	// Network is the configuration's name.
	Network string
	// Args is CNI_ARGS.
	Args string
	// Stdin is the network configuration.
	Stdin []byte
}

// command says what the specification wants of one.
type command struct {
	needs []string
	// since is the version that brought it.
	since string
}

var commands = map[string]command{
	"ADD":     {[]string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, "0.1.0"},
	"DEL":     {[]string{"CNI_CONTAINERID", "CNI_IFNAME"}, "0.1.0"},
	"CHECK":   {[]string{"CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"}, "0.4.0"},
	"GC":      {nil, "1.1.0"},
	"STATUS":  {nil, "1.1.0"},
	"VERSION": {nil, "0.1.0"},
}

// Read reads a call.
func Read(getenv func(string) string, stdin io.Reader) (Call, error) {
	c := Call{
		Command: getenv("CNI_COMMAND"), ContainerID: getenv("CNI_CONTAINERID"), Netns: getenv("CNI_NETNS"),
		IfName: getenv("CNI_IFNAME"), Args: getenv("CNI_ARGS"), Path: getenv("CNI_PATH"),
	}
	is, known := commands[c.Command]
	if !known {
		return c, environment("CNI_COMMAND", c.Command, "is none of ADD, DEL, CHECK, GC, STATUS, VERSION")
	}
	for _, name := range is.needs {
		if getenv(name) == "" {
			return c, environment(name, "", "is missing: "+c.Command+" needs it")
		}
	}
	if why := badContainerID(c.ContainerID); why != "" {
		return c, environment("CNI_CONTAINERID", c.ContainerID, why)
	}
	if why := badIfName(c.IfName); why != "" {
		return c, environment("CNI_IFNAME", c.IfName, why)
	}
	if c.Command == "VERSION" {
		return c, nil
	}
	var err error
	if c.Stdin, err = io.ReadAll(stdin); err != nil {
		return c, types.NewError(types.ErrIOFailure, "cannot read the network configuration", "stdin: "+err.Error())
	}
	return c, c.readVersion(is)
}

// readVersion reads what every configuration has.
func (c *Call) readVersion(is command) error {
	var head struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
	}
	if err := json.Unmarshal(c.Stdin, &head); err != nil {
		return types.NewError(types.ErrDecodingFailure, "cannot decode the network configuration",
			fmt.Sprintf("stdin: %v; it holds a network configuration as JSON", err))
	}
	c.CNIVersion = head.CNIVersion
	if !slices.Contains(Versions, c.CNIVersion) {
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI version",
			fmt.Sprintf("cniVersion: %q is none of %s", c.CNIVersion, strings.Join(Versions, ", ")))
	}
	if old, err := version.GreaterThan(is.since, c.CNIVersion); err != nil || old {
		return types.NewError(types.ErrIncompatibleCNIVersion, "incompatible CNI version",
			fmt.Sprintf("cniVersion: %s has no %s, which came with %s", c.CNIVersion, c.Command, is.since))
	}
	c.Network = head.Name
	if head.Name == "" || badContainerID(head.Name) != "" {
		return types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration",
			fmt.Sprintf("name: %q is no network name; give letters, digits, '_', '.' and '-', a letter or digit first", head.Name))
	}
	return nil
}

func environment(name, value, why string) error {
	return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid "+name, strings.Join(strings.Fields(fmt.Sprintf("%s %s %s", name, quote(value), why)), " "))
}

func quote(s string) string {
	if s == "" {
		return ""
	}
	return fmt.Sprintf("%q", s)
}

// badContainerID says what is wrong with an id or network name (the
// specification's section 2), which becomes part of file names.
func badContainerID(id string) string {
	for i, r := range id {
		alphanumeric := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		if !alphanumeric && (i == 0 || !strings.ContainsRune("_.-", r)) {
			return fmt.Sprintf("may not have %q: letters and digits, then also '_', '.' and '-'", r)
		}
	}
	return ""
}

// badIfName says what is wrong with an interface's name, as the kernel sees
// it (dev_valid_name).
func badIfName(name string) string {
	const most = 15
	switch {
	case len(name) > most:
		return fmt.Sprintf("is too long: %d bytes, of which the kernel takes %d", len(name), most)
	case name == "." || name == "..":
		return "is no interface name"
	case strings.ContainsAny(name, "/: \t\n\v\f\r"):
		return "may not have '/', ':' or space"
	}
	return ""
}
