package route

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/apply/ethtool"
	"poplin.dev/poplin/pkg/program"
)

// alias tells an administrator whose the device is.
const alias = "poplin: the pod network's overlay"

// findLink returns the overlay device, nil if there is none. A device of
// another kind under its name is somebody else's.
func (a *Applier) findLink() (*netlink.Vxlan, error) {
	link, err := a.handle.LinkByName(a.conf.Link)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", a.conf.Link, err)
	}
	vx, ok := link.(*netlink.Vxlan)
	if !ok {
		return nil, fmt.Errorf("find device %s: a device of kind %s has its name, rename or remove it", a.conf.Link, link.Type())
	}
	return vx, nil
}

// setLink makes the device, its sysctls and its state agree with want. The
// error is joined from all that failed; where the device that want has cannot
// be had, there is no link, and nothing else can be done. Where want has none,
// link is what is left of an earlier program.
func (a *Applier) setLink(want program.Net) (link *netlink.Vxlan, res diff.Result, err error) {
	wanted := want.Link != program.VXLAN{}
	if wanted {
		link, res, err = a.ensureLink(want.Link)
	} else {
		link, err = a.findLink()
	}
	if err != nil {
		return nil, res, err
	}
	a.follow(link)
	if len(want.Sysctls) > 0 {
		settings, errSettings := a.conf.Sysctls(want.Sysctls)
		res, err = res.Plus(settings), errSettings
	}
	if wanted {
		fixed, errFix := a.fixLink(link, want.Link)
		res, err = res.Plus(fixed), errors.Join(err, errFix)
	}
	return link, res, err
}

// follow has the mirror start over where the device is another one, or gone:
// neighbours, forwarding entries and routes go with a device.
func (a *Applier) follow(link *netlink.Vxlan) {
	index := 0
	if link != nil {
		index = link.Index
	}
	a.events.setOverlay(index)
	if a.state != nil && a.state.index() != index {
		a.state = nil
	}
}

func (a *Applier) removeLink(link *netlink.Vxlan) error {
	return named("remove device", a.conf.Link, a.handle.LinkDel(link), unix.ENODEV)
}

// ensureLink finds or makes the device.
func (a *Applier) ensureLink(want program.VXLAN) (*netlink.Vxlan, diff.Result, error) {
	var res diff.Result
	link, err := a.findLink()
	if err != nil {
		return nil, diff.Result{Failed: 1}, err
	}
	if link != nil && !sameTunnel(link, want) {
		a.conf.Log.Info("overlay device is made anew", "device", a.conf.Link, "was", describe(link), "wanted", want.String())
		if err := a.removeLink(link); err != nil {
			return nil, diff.Result{Failed: 1}, err
		}
		res.Removed, link = 1, nil
	}
	if link == nil {
		if link, err = a.addLink(want); err != nil {
			return nil, res.Plus(diff.Result{Failed: 1}), err
		}
		res.Added++
	}
	return link, res, nil
}

func (a *Applier) addLink(want program.VXLAN) (*netlink.Vxlan, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = want.Name, want.MTU, want.MAC[:]
	err := a.handle.LinkAdd(&netlink.Vxlan{
		LinkAttrs: attrs, VxlanId: int(want.VNI), Port: int(want.Port),
		VtepDevIndex: want.ParentIndex, SrcAddr: want.Local.AsSlice(),
	})
	if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("add device %s: %sremove it or choose another vni and port on all nodes: %w", want.Name, a.rival(want), err)
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil, fmt.Errorf("add device %s: the kernel lacks VXLAN (CONFIG_VXLAN, module vxlan): %w", want.Name, err)
	}
	if err != nil {
		return nil, fmt.Errorf("add device %s: %w", want.Name, err)
	}
	link, err := a.findLink()
	if err == nil && link == nil {
		err = fmt.Errorf("add device %s: it is gone again", want.Name)
	}
	return link, err
}

// rival names the device that has our VNI or port: the kernel only says "file exists".
func (a *Applier) rival(want program.VXLAN) string {
	links, _ := whole(a.handle.LinkList)
	for _, l := range links {
		if vx, ok := l.(*netlink.Vxlan); ok && vx.Port == int(want.Port) {
			return fmt.Sprintf("device %s uses VXLAN %d on port %d, ", vx.Name, vx.VxlanId, vx.Port)
		}
	}
	return fmt.Sprintf("another device or program uses VXLAN %d or UDP port %d, ", want.VNI, want.Port)
}

// fixLink sets what can be set on a living device.
func (a *Applier) fixLink(link *netlink.Vxlan, want program.VXLAN) (res diff.Result, err error) {
	offload, err := ethtool.TxChecksum(link.Name)
	if err != nil {
		res.Failed++
	}
	for _, fix := range []struct {
		what  string
		right bool
		set   func() error
	}{
		{"alias", link.Alias == alias, func() error { return a.handle.LinkSetAlias(link, alias) }},
		{"mtu", link.MTU == want.MTU, func() error { return a.handle.LinkSetMTU(link, want.MTU) }},
		{"address", bytes.Equal(link.HardwareAddr, want.MAC[:]), func() error { return a.handle.LinkSetHardwareAddr(link, want.MAC[:]) }},
		{"transmit checksum", err != nil || offload != want.SoftwareChecksum, func() error { return ethtool.SetTxChecksum(link.Name, !want.SoftwareChecksum) }},
		{"up", link.Flags&net.FlagUp != 0, func() error {
			a.state = nil // routes went when the device went down
			return a.handle.LinkSetUp(link)
		}},
	} {
		if fix.right {
			continue
		}
		if setErr := named("set "+fix.what+" of device", link.Name, fix.set()); setErr != nil {
			res.Failed++
			err = errors.Join(err, setErr)
			continue
		}
		res.Changed++
	}
	return res, err
}

// SumsInSoftware reports that there is an overlay device whose packets the CPU
// sums up: one made by an earlier process, say.
func (a *Applier) SumsInSoftware() (bool, error) {
	link, err := a.findLink()
	if link == nil || err != nil {
		return false, err
	}
	offload, err := ethtool.TxChecksum(link.Name)
	return !offload, err
}

// sameTunnel compares what cannot be changed on a living device, or not by
// every kernel we run on.
func sameTunnel(have *netlink.Vxlan, want program.VXLAN) bool {
	local, _ := ipOf(have.SrcAddr)
	return have.VxlanId == int(want.VNI) && have.Port == int(want.Port) && local == want.Local &&
		have.VtepDevIndex == want.ParentIndex && !have.Learning && !have.GBP && !have.FlowBased && have.Group == nil
}

func describe(l *netlink.Vxlan) string {
	return fmt.Sprintf("id %d dstport %d local %s parent %d learning %t", l.VxlanId, l.Port, l.SrcAddr, l.VtepDevIndex, l.Learning)
}

// Networks are those of addrs that a device holds, each with the length of its
// network's prefix. An address that is alone in its network is left out.
func (a *Applier) Networks(index int, addrs []netip.Addr) ([]netip.Prefix, error) {
	held, err := whole(func() ([]netlink.Addr, error) { return a.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var list []netip.Prefix
	for _, want := range addrs {
		for _, h := range held {
			bits, all := h.Mask.Size()
			if ip, ok := ipOf(h.IP); ok && ip == want && h.LinkIndex == index && bits < all {
				list = append(list, netip.PrefixFrom(ip, bits))
				break
			}
		}
	}
	return list, nil
}
