package call

import (
	"encoding/json"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

// Attachment is an interface of a container.
type Attachment struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
}

// Valid is the attachments that a GC has to keep. A list that is not there or
// cannot be read is an error: taken for an empty one, it would cost every pod
// its network.
func (c Call) Valid() ([]Attachment, error) {
	const key = "cni.dev/valid-attachments"
	var outer map[string]json.RawMessage
	if err := json.Unmarshal(c.Stdin, &outer); err != nil {
		return nil, badList(key, err.Error())
	}
	raw, ok := outer[key]
	if !ok {
		raw, ok = outer["cni.dev/attachments"] // what libcni 1.2.0 called it
	}
	if !ok {
		return nil, badList(key, "missing; GC keeps what is listed there, and an empty list removes all")
	}
	var list []Attachment
	if err := json.Unmarshal(raw, &list); err != nil {
		return nil, badList(key, err.Error()+`; give a list of {"containerID": ..., "ifname": ...}`)
	}
	for i, a := range list {
		if a.ContainerID == "" || a.IfName == "" {
			return nil, badList(fmt.Sprintf("%s[%d]", key, i), fmt.Sprintf("has containerID %q and ifname %q; give both", a.ContainerID, a.IfName))
		}
	}
	return list, nil
}

func badList(key, why string) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid list of valid attachments", key+": "+why)
}
