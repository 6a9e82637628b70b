package table

import (
	"encoding/binary"
	"fmt"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

// Counts are the packets that the rules of each chain of a table have counted
// since they were made; chains that count nothing are left out, and a table
// that is not there has none. It asks through a socket of its own.
func Counts(name string, netns int) (map[string]uint64, error) {
	sock, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	defer sock.Close()
	var ask wire.Attrs
	ask.Text(unix.NFTA_RULE_TABLE, name)
	counts := map[string]uint64{}
	err = wire.Dump(sock, unix.NFNL_SUBSYS_NFTABLES, unix.NFT_MSG_GETRULE, unix.NFPROTO_INET, ask, func(rule []byte) {
		chain := wire.String(wire.Find(rule, unix.NFTA_RULE_CHAIN))
		for _, e := range wire.Each(wire.Find(rule, unix.NFTA_RULE_EXPRESSIONS)) {
			if wire.String(wire.Find(e, unix.NFTA_EXPR_NAME)) != "counter" {
				continue
			}
			if n := wire.Find(e, unix.NFTA_EXPR_DATA, unix.NFTA_COUNTER_PACKETS); len(n) == 8 {
				counts[chain] += binary.BigEndian.Uint64(n)
			}
		}
	})
	if err != nil {
		return nil, fmt.Errorf("read counters of table inet %s: %w", name, err)
	}
	return counts, nil
}
