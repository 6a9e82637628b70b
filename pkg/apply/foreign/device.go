package foreign

import (
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/facts"
)

// devicesOf are the devices of chains at devices' hooks, by place: the library does
// not read them. The kernel is asked only where there is such a chain.
func devicesOf(chains []*nftables.Chain) (map[string][]string, error) {
	if !slices.ContainsFunc(chains, func(c *nftables.Chain) bool {
		hook := hookName(c)
		return hook == facts.Ingress || hook == facts.Egress
	}) {
		return nil, nil
	}
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, nil)
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	defer sock.Close()
	answers, err := sock.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETCHAIN, Flags: netlink.Request | netlink.Dump},
		Data:   []byte{unix.AF_UNSPEC, unix.NFNETLINK_V0, 0, 0},
	})
	if err != nil {
		return nil, fmt.Errorf("read the devices of other programs' chains: %w", err)
	}
	all := map[string][]string{}
	for _, m := range answers {
		if err := deviceOf(m.Data, all); err != nil {
			return nil, fmt.Errorf("read the devices of other programs' chains: %w", err)
		}
	}
	return all, nil
}

// deviceOf reads one chain's: a header of four bytes, of which the first is the
// family, and attributes.
func deviceOf(chain []byte, all map[string][]string) error {
	if len(chain) < 4 {
		return fmt.Errorf("%d bytes are no chain", len(chain))
	}
	var table, name string
	var devices []string
	ad, err := netlink.NewAttributeDecoder(chain[4:])
	if err != nil {
		return err
	}
	ad.ByteOrder = binary.BigEndian
	for ad.Next() {
		switch ad.Type() {
		case unix.NFTA_CHAIN_TABLE:
			table = ad.String()
		case unix.NFTA_CHAIN_NAME:
			name = ad.String()
		case unix.NFTA_CHAIN_HOOK:
			ad.Nested(func(hook *netlink.AttributeDecoder) error {
				devices = hooked(hook)
				return nil
			})
		}
	}
	all[place(nftables.TableFamily(chain[0]), table, name)] = devices
	return ad.Err()
}

// hookDevices is NFTA_HOOK_DEVS of linux/netfilter/nf_tables.h, which the library lacks.
const hookDevices = 4

// hooked are the names in a hook: one, or a list.
func hooked(hook *netlink.AttributeDecoder) (names []string) {
	add := func(name string) {
		if name = strings.TrimRight(name, "\x00"); !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	for hook.Next() {
		switch hook.Type() {
		case unix.NFTA_HOOK_DEV:
			add(hook.String())
		case hookDevices:
			hook.Nested(func(list *netlink.AttributeDecoder) error {
				for list.Next() {
					add(list.String())
				}
				return nil
			})
		}
	}
	return names
}
