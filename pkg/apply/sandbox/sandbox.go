// Package sandbox knows which containers the runtime has attached to networks.
// Input is the directory in which libcni, and so containerd and CRI-O, keep a
// file for each attachment from the end of its ADD to the end of its DEL; output
// is a list of them. It refuses to call an attachment unknown when it cannot be
// sure: without the directory there is no list, and a file that cannot be read
// counts for every container whose id is in its name.
//
// The runtime's socket would say more, but whoever may use it is root on the
// node.
package sandbox

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
)

// CacheDir is libcni's default.
const CacheDir = "/var/lib/cni/results"

// Attachment is one interface of a container.
type Attachment struct {
	ContainerID, IfName, Network string
	// Pod is namespace and name; empty where the runtime did not say.
	Pod string
	// NetNS is the path of its network namespace; empty where nobody says.
	NetNS string
	// MAC and Addrs are those of the interface; empty where nobody says.
	MAC   string
	Addrs []netip.Addr
}

// List is all attachments, of every network: a plugin that delegates to others
// keeps theirs elsewhere, but a container of the list is there.
type List struct {
	Attachments []Attachment
	damaged     []string
}

// Knows reports whether a container may be there.
func (l List) Knows(containerID string) bool {
	for _, a := range l.Attachments {
		if a.ContainerID == containerID {
			return true
		}
	}
	for _, name := range l.damaged {
		if strings.Contains(name, containerID) {
			return true
		}
	}
	return false
}

// Read lists what is in dir.
func Read(dir string) (List, error) { return (&Cache{Dir: dir}).Read() }

// Cache is for whoever reads a directory again and again. A file is written once,
// under a name that has the container's id, so it is read once.
type Cache struct {
	Dir   string
	known map[string]Attachment
}

// Read lists what is in the directory now.
func (c *Cache) Read() (List, error) {
	var l List
	files, err := os.ReadDir(c.Dir)
	if err != nil {
		return l, fmt.Errorf("list the runtime's attachments: %w", err)
	}
	known := make(map[string]Attachment, len(files))
	for _, f := range files {
		a, ok := c.known[f.Name()]
		if !ok {
			if a, err = read(filepath.Join(c.Dir, f.Name())); err != nil {
				l.damaged = append(l.damaged, f.Name())
				continue
			}
		}
		known[f.Name()] = a
		l.Attachments = append(l.Attachments, a)
	}
	c.known = known
	return l, nil
}

// file is what is read of an attachment's; its result is in CNI's form since 0.3.
type file struct {
	ContainerID, IfName, NetworkName, NetNS string

	CNIArgs [][2]string `json:"cniArgs"`
	Result  struct {
		Interfaces []struct{ Name, Mac, Sandbox string }
		IPs        []struct {
			Interface *int
			Address   string
		}
	}
}

func read(path string) (Attachment, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Attachment{}, err
	}
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return Attachment{}, err
	}
	if f.ContainerID == "" {
		return Attachment{}, fmt.Errorf("%s names no container", path)
	}
	a := Attachment{ContainerID: f.ContainerID, IfName: f.IfName, Network: f.NetworkName, NetNS: f.NetNS}
	for i, in := range f.Result.Interfaces {
		if in.Name != a.IfName || in.Sandbox == "" {
			continue
		}
		if a.NetNS == "" { // where libcni is older than the key
			a.NetNS = in.Sandbox
		}
		a.MAC, a.Addrs = in.Mac, f.addresses(i)
	}
	pod := map[string]string{}
	for _, arg := range f.CNIArgs {
		pod[arg[0]] = arg[1]
	}
	if name := pod["K8S_POD_NAME"]; name != "" {
		a.Pod = pod["K8S_POD_NAMESPACE"] + "/" + name
	}
	return a, nil
}

// addresses are those of an interface of the result, by its index.
func (f file) addresses(of int) (list []netip.Addr) {
	for _, ip := range f.Result.IPs {
		if p, err := netip.ParsePrefix(ip.Address); err == nil && ip.Interface != nil && *ip.Interface == of {
			list = append(list, p.Addr())
		}
	}
	return list
}
