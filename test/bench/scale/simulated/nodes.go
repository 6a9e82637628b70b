package simulated

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/test/bench/plane"
)

type object = map[string]any

// Names and addresses of all nodes and pods are equally long, so that what the
// API server keeps of one becomes another's by putting one's in place of the
// other's.

// Node is one of the cluster's; they count from 0.
type Node int

const (
	// Self is the node on which something runs. It has the control plane's
	// address number Number.
	Self Node = -1
	// SelfName is its name.
	SelfName = "self-00000"
	Number   = 101
	// Largest is how many nodes Kubernetes supports.
	Largest = 5000
)

// Name is the node's.
func (n Node) Name() string {
	if n == Self {
		return SelfName
	}
	return fmt.Sprintf("peer-%05d", int(n))
}

func (n Node) uid(kind int) string {
	return fmt.Sprintf("00000000-0000-4000-800%d-%012d", kind, int(n))
}

// place are the two numbers in a node's addresses.
func (n Node) place() (int, int) { return int(n) / 100, 100 + int(n)%100 }

// Address is the one that other nodes reach it by.
func (n Node) Address() string {
	if n == Self {
		return plane.NodeAddress(Number).String()
	}
	hi, lo := n.place()
	return fmt.Sprintf("198.18.%d.%d", 100+hi, lo)
}

// host is what a pod's status says of its node, of which nobody here reads it:
// the daemon's node has a shorter address.
func (n Node) host() string {
	if n == Self {
		return "198.19.255.255"
	}
	return n.Address()
}

// Moved is another address of the node's.
func (n Node) Moved() string {
	hi, lo := n.place()
	return fmt.Sprintf("198.19.%d.%d", 100+hi, lo)
}

// pod4 and pod6 are the i-th pod's addresses; 0 is the range's own.
func (n Node) pod4(i int) string {
	if n == Self {
		return fmt.Sprintf("10.255.%d.%d", Number, i)
	}
	hi, lo := n.place()
	return fmt.Sprintf("10.%d.%d.%d", 128+hi, lo, i)
}

func (n Node) pod6(i string) string {
	if n == Self {
		return fmt.Sprintf("fd00:255:%d::%s", Number, i)
	}
	hi, lo := n.place()
	return fmt.Sprintf("fd00:%d:%d::%s", 128+hi, lo, i)
}

// Ranges are those of its pods.
func (n Node) Ranges() []string { return []string{n.pod4(0) + "/24", n.pod6("") + "/64"} }

// MAC is that of its VTEP.
func (n Node) MAC() string { return cluster.MACOf(n.uid(0)).String() }

// words are what differs between what is kept of two nodes.
func (n Node) words() []string {
	return append(n.Ranges(), n.Name(), n.Address(), n.MAC(), n.uid(0), n.uid(1), n.uid(2))
}

// images are those on a node: the kubelet names 50 of them at most.
const images = 25

func (n Node) object() object {
	return object{
		"apiVersion": "v1", "kind": "Node",
		"metadata": object{"name": n.Name(), "labels": object{
			"kubernetes.io/hostname": n.Name(), "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
			"node.kubernetes.io/instance-type": "general-8", "topology.kubernetes.io/zone": "zone-1", "topology.kubernetes.io/region": "region-1",
		}},
		"spec":   object{"podCIDRs": n.Ranges(), "podCIDR": n.Ranges()[0]},
		"status": n.status("2026-01-01T00:00:00Z"),
	}
}

// status is what the kubelet reports, at a time.
func (n Node) status(at string) object {
	var conditions, list []object
	for _, kind := range []string{"MemoryPressure", "DiskPressure", "PIDPressure", "Ready"} {
		conditions = append(conditions, object{
			"type": kind, "status": map[bool]string{true: "True", false: "False"}[kind == "Ready"], "reason": "KubeletHas" + kind,
			"message": "kubelet has told of " + kind, "lastHeartbeatTime": at, "lastTransitionTime": "2026-01-01T00:00:00Z",
		})
	}
	for i := range images {
		list = append(list, object{"sizeBytes": 40_000_000 + i, "names": []string{
			fmt.Sprintf("registry.example.com/team/app-%02d@sha256:%064d", i, i), fmt.Sprintf("registry.example.com/team/app-%02d:v1.0", i)}})
	}
	resources := object{"cpu": "8", "memory": "32Gi", "pods": "110", "ephemeral-storage": "100Gi"}
	return object{
		"addresses":  []object{{"type": "InternalIP", "address": n.Address()}, {"type": "Hostname", "address": n.Name()}},
		"conditions": conditions, "images": list, "capacity": resources, "allocatable": resources,
		"daemonEndpoints": object{"kubeletEndpoint": object{"Port": 10250}},
		"nodeInfo": object{
			"architecture": "amd64", "bootID": n.uid(3), "containerRuntimeVersion": "containerd://2.1.0", "kernelVersion": "6.18.0",
			"kubeProxyVersion": "", "kubeletVersion": "v1.36.3", "machineID": n.uid(4), "operatingSystem": "linux", "osImage": "Linux", "systemUUID": n.uid(5),
		},
	}
}

// Network is its NodeNetwork, with its VTEP at an address.
func (n Node) Network(address string) object {
	return object{
		"apiVersion": "poplin.dev/v1alpha1", "kind": "NodeNetwork",
		"metadata": object{"name": n.Name(), "ownerReferences": []object{{"apiVersion": "v1", "kind": "Node", "name": n.Name(), "uid": n.uid(0)}}},
		"spec":     object{"podCIDRs": n.Ranges(), "mtu": 1450, "vtep": object{"address": address, "mac": n.MAC()}},
	}
}

func (n Node) lease(at string) object {
	return object{
		"apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
		"metadata": object{"name": n.Name(), "namespace": "kube-node-lease", "ownerReferences": []object{{"apiVersion": "v1", "kind": "Node", "name": n.Name(), "uid": n.uid(0)}}},
		"spec":     object{"holderIdentity": n.Name(), "leaseDurationSeconds": 40, "renewTime": at},
	}
}

const (
	nodesPath  = "/api/v1/nodes"
	leasesPath = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
	// NetworksPath is where NodeNetworks are.
	NetworksPath = "/apis/poplin.dev/v1alpha1/nodenetworks"
)

// others makes one of each kind, and copies for the other nodes.
func (c *Cluster) others(ctx context.Context) error {
	model := Node(0)
	for _, kind := range []struct {
		key, path, manager string
		object             object
		uid                int // which of the node's
	}{
		{"/registry/minions/", nodesPath, "kubelet", model.object(), 0},
		{"/registry/poplin.dev/nodenetworks/", NetworksPath, "poplin", model.Network(model.Address()), 1},
		{"/registry/leases/kube-node-lease/", leasesPath, "kubelet", model.lease("2026-01-01T00:00:00.000000Z"), 2},
	} {
		uid, err := c.create(ctx, kind.path, kind.manager, kind.object)
		if err != nil {
			return err
		}
		kept, err := c.plane.Stored(ctx, kind.key+model.Name())
		if err != nil {
			return err
		}
		text := strings.ReplaceAll(string(kept), uid, model.uid(kind.uid))
		pairs, err := copies(text, model.words(), c.size, func(i int) (string, []string) { return kind.key + Node(i).Name(), Node(i).words() })
		if err != nil {
			return err
		}
		if err := c.plane.Store(ctx, pairs); err != nil {
			return err
		}
	}
	return nil
}

// create makes an object as one who is called manager does, with its status,
// and returns its UID.
func (c *Cluster) create(ctx context.Context, path, manager string, o object) (uid string, err error) {
	var made struct {
		Metadata struct{ Name, UID string }
	}
	if err := c.plane.API.Send(ctx, http.MethodPost, path+"?fieldManager="+manager, o, &made); err != nil {
		return "", err
	}
	if o["status"] != nil {
		err = c.plane.API.Send(ctx, http.MethodPut, path+"/"+made.Metadata.Name+"/status?fieldManager=kubelet", o, nil)
	}
	return made.Metadata.UID, err
}

// copies are n pairs that are a model with its words replaced.
func copies(model string, words []string, n int, of func(i int) (key string, words []string)) ([]plane.Pair, error) {
	pairs := make([]plane.Pair, n)
	for i := range n {
		key, others := of(i)
		var replace []string
		for j, w := range words {
			if len(w) != len(others[j]) {
				return nil, fmt.Errorf("copy to %s: %q is not as long as %q", key, others[j], w)
			}
			replace = append(replace, w, others[j])
		}
		pairs[i] = plane.Pair{Key: key, Value: []byte(strings.NewReplacer(replace...).Replace(model))}
	}
	return pairs, nil
}
