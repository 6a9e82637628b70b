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
func Read(dir string) (List, error) {
	var l List
	files, err := os.ReadDir(dir)
	if err != nil {
		return l, fmt.Errorf("list the runtime's attachments: %w", err)
	}
	for _, f := range files {
		a, err := read(filepath.Join(dir, f.Name()))
		if err != nil {
			l.damaged = append(l.damaged, f.Name())
			continue
		}
		l.Attachments = append(l.Attachments, a)
	}
	return l, nil
}

func read(path string) (Attachment, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Attachment{}, err
	}
	var file struct {
		ContainerID, IfName, NetworkName, NetNS string

		CNIArgs [][2]string `json:"cniArgs"`
		Result  struct {
			Interfaces []struct{ Name, Sandbox string }
		}
	}
	if err := json.Unmarshal(text, &file); err != nil {
		return Attachment{}, err
	}
	if file.ContainerID == "" {
		return Attachment{}, fmt.Errorf("%s names no container", path)
	}
	a := Attachment{ContainerID: file.ContainerID, IfName: file.IfName, Network: file.NetworkName, NetNS: file.NetNS}
	for _, i := range file.Result.Interfaces { // where libcni is older than the key
		if a.NetNS == "" && i.Name == a.IfName {
			a.NetNS = i.Sandbox
		}
	}
	pod := map[string]string{}
	for _, arg := range file.CNIArgs {
		pod[arg[0]] = arg[1]
	}
	if name := pod["K8S_POD_NAME"]; name != "" {
		a.Pod = pod["K8S_POD_NAMESPACE"] + "/" + name
	}
	return a, nil
}
