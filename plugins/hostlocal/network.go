package hostlocal

import (
	"encoding/json"
	"errors"
	"fmt"

	"poplin.dev/poplin/plugins/hostlocal/allocator"
	"poplin.dev/poplin/plugins/hostlocal/store"
)

// Network is one network's addresses, for those who look after them.
type Network struct {
	Name  string
	Store *store.Store
	Sets  []allocator.Set
}

// Named is the network of that name below dataDir, which is upstream's if it is
// empty. Its ranges are unknown.
func (p Plugin) Named(dataDir, name string) (Network, error) {
	d, err := newDirectory(dataDir, name)
	return Network{Name: name, Store: p.open(d)}, err
}

// Conflist is the network of a conflist that names host-local as the IPAM of
// its first plugin.
func (p Plugin) Conflist(text []byte) (Network, error) {
	var list struct {
		Name    string
		Plugins []map[string]json.RawMessage
	}
	if err := json.Unmarshal(text, &list); err != nil {
		return Network{}, fmt.Errorf("read conflist: %w", err)
	}
	if len(list.Plugins) == 0 {
		return Network{}, errors.New("read conflist: it has no plugins")
	}
	name, err := json.Marshal(list.Name)
	if err != nil {
		return Network{}, err
	}
	list.Plugins[0]["name"] = name
	stdin, err := json.Marshal(list.Plugins[0])
	if err != nil {
		return Network{}, err
	}
	c, err := parse(stdin, "")
	if err != nil {
		return Network{}, fmt.Errorf("read conflist: %w", err)
	}
	return Network{Name: list.Name, Store: p.open(c.dir), Sets: c.sets}, nil
}
