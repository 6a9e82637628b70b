package table

import (
	"errors"
	"fmt"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/program/nft"
)

// Found is what Look found beside the elements.
type Found struct {
	// Label is the one that a rule asks connections for.
	Label nft.Label

	exists bool
	conf   Config
	maps   map[string]bool
	hooks  bool
	chains map[string][]wire.Mark
}

// Look reads a table, whoever owns it, and changes nothing. It needs Name and
// Maps of the configuration, and Hooked to know what is wrong.
func Look(conf Config, enter func(name string, list []Element) bool) (f Found, err error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: conf.NetNS})
	if err != nil {
		return f, fmt.Errorf("open nftables socket: %w", err)
	}
	defer sock.Close()
	t := &Table{conf: conf, sock: sock}
	f.conf = conf
	tables, err := t.dump(unix.NFT_MSG_GETTABLE, func(*wire.Attrs) {})
	if err != nil {
		return f, fmt.Errorf("list nftables tables: %w", err)
	}
	f.exists = slices.ContainsFunc(tables, func(b []byte) bool { return wire.String(wire.Find(b, unix.NFTA_TABLE_NAME)) == conf.Name })
	if !f.exists {
		return f, nil
	}
	f.hooks, err = t.read(enter)
	f.maps, f.chains, f.Label = t.maps, t.chains, t.label
	if errors.Is(err, unix.ENOENT) {
		return Found{conf: conf}, nil // it went meanwhile
	}
	return f, err
}

// Wrong names what is missing, or is not as want has it.
func (f Found) Wrong(want []nft.Chain) (list []string) {
	if !f.exists {
		return []string{"table inet " + f.conf.Name + " does not exist"}
	}
	for _, m := range f.conf.Maps {
		if !f.maps[m.Name] {
			list = append(list, "map "+m.Name+" is missing, or not as it should be")
		}
	}
	for _, c := range want {
		var marks []wire.Mark
		for _, r := range c.Rules {
			marks = append(marks, wire.MarkOf(r))
		}
		if have, exists := f.chains[c.Name]; !exists {
			list = append(list, "chain "+c.Name+" is missing")
		} else if !slices.Equal(have, marks) {
			list = append(list, "rules of chain "+c.Name+" are not as they should be")
		}
	}
	if len(list) == 0 && !f.hooks {
		list = append(list, "a chain has another hook than it should have, or an element cannot be read")
	}
	return list
}
