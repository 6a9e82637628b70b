package probe

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Device asks the kernel for a network device of a kind, which is removed at
// once; it is never up.
func Device(kind string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = "poplin-probe"
	var link netlink.Link = &netlink.GenericLink{LinkAttrs: attrs, LinkType: kind}
	if kind == "vxlan" {
		// A number and a port that nobody else uses.
		link = &netlink.Vxlan{LinkAttrs: attrs, VxlanId: 1<<24 - 2, Port: port}
	}
	err := netlink.LinkAdd(link)
	if errors.Is(err, unix.EEXIST) {
		// Of a probe that was killed.
		err = errors.Join(netlink.LinkDel(link), netlink.LinkAdd(link))
	}
	if err != nil {
		return fmt.Errorf("make a device of kind %s: %w", kind, err)
	}
	return netlink.LinkDel(link)
}
