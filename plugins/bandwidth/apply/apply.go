// Package apply limits what passes a pod's link: by a token bucket on the
// host's end for what the pod receives, and by one on a device of kind ifb,
// through which all goes that the pod sends. Inputs are the name of the host's
// end and Limits; outputs are errors. It shapes, that is, it delays before it
// drops. It refuses to leave anything behind of an Add that failed.
package apply

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"strings"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/bandwidth"
	"poplin.dev/poplin/plugins/wire"
)

// prefix makes a device's name out of a link's.
const prefix = "plb"

// device is the name of the ifb that belongs to a link.
func device(link string) string { return prefix + link[min(len(prefix), len(link)):] }

// Add limits a link that exists.
func Add(link string, l bandwidth.Limits) (err error) {
	if l == (bandwidth.Limits{}) {
		return nil
	}
	c, err := wire.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	index, err := wire.Index(link)
	if err != nil || index == 0 {
		return errors.Join(err, fmt.Errorf("limit bandwidth of link %s: %w", link, unix.ENODEV))
	}
	if l.Ingress != (bandwidth.Rate{}) {
		if err := do(c, "limit what the pod receives (does the kernel have sch_tbf?)", bucket(index, l.Ingress)); err != nil {
			return err
		}
	}
	if l.Egress == (bandwidth.Rate{}) {
		return nil
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Del(link))
		}
	}()
	return addEgress(c, link, index, l.Egress)
}

func addEgress(c *wire.Conn, link string, index int, r bandwidth.Rate) error {
	name := device(link)
	// One that is there is left over: its link is new.
	if err := do(c, "make device "+name+" (does the kernel have ifb?)", newDevice(name)); err != nil {
		return err
	}
	ifb, err := wire.Index(name)
	if err != nil {
		return err
	}
	// A kernel without IPv6 does not know the setting, and needs none.
	_ = do(c, "", noAddresses(ifb))
	if err := do(c, "limit what the pod sends (does the kernel have sch_tbf?)", bucket(ifb, r)); err != nil {
		return err
	}
	if err := do(c, "set device "+name+" up", raise(ifb)); err != nil {
		return err
	}
	return do(c, "lead what the pod sends to device "+name+" (does the kernel have sch_ingress, cls_u32 and act_mirred?)",
		ingress(index), redirect(index, ifb))
}

// Del removes what does not go with the link; without it there is nothing to
// do, which costs three system calls.
func Del(link string) error {
	index, err := wire.Index(device(link))
	if err != nil || index == 0 {
		return err
	}
	c, err := wire.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	err = do(c, "remove device "+device(link), wire.Message{Kind: unix.RTM_DELLINK, Body: linkHeader(index, 0)})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Sync removes the devices whose link is gone.
func Sync() error {
	c, err := wire.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	answers, err := c.Do(wire.Message{Kind: unix.RTM_GETLINK, Flags: unix.NLM_F_DUMP, Body: linkHeader(0, 0)})
	errs := []error{err}
	for _, b := range answers {
		if len(b) < unix.SizeofIfInfomsg {
			continue
		}
		name := unix.ByteSliceToString(wire.Find(b[unix.SizeofIfInfomsg:], unix.IFLA_IFNAME))
		kind := unix.ByteSliceToString(wire.Find(b[unix.SizeofIfInfomsg:], unix.IFLA_LINKINFO, unix.IFLA_INFO_KIND))
		digits, ours := strings.CutPrefix(name, prefix)
		if !ours || kind != "ifb" {
			continue
		}
		link := "plw" + digits
		if index, err := wire.Index(link); err != nil || index != 0 {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, Del(link))
	}
	return errors.Join(errs...)
}

// Check says how a link's limits differ from l.
func Check(link string, l bandwidth.Limits) error {
	if l == (bandwidth.Limits{}) {
		return nil
	}
	c, err := wire.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	var errs []error
	for _, side := range []struct {
		device string
		want   bandwidth.Rate
	}{{link, l.Ingress}, {device(link), l.Egress}} {
		if side.want == (bandwidth.Rate{}) {
			continue
		}
		index, err := wire.Index(side.device)
		if err == nil && index == 0 {
			err = fmt.Errorf("no device %s, which limits what the pod sends", side.device)
		}
		if err == nil {
			err = checkBucket(c, side.device, index, side.want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

func checkBucket(c *wire.Conn, name string, index int, want bandwidth.Rate) error {
	answers, err := c.Do(wire.Message{Kind: unix.RTM_GETQDISC, Flags: unix.NLM_F_DUMP, Body: trafficHeader(index, 0, 0, 0)})
	if err != nil {
		return fmt.Errorf("list queues: %w", err)
	}
	for _, b := range answers {
		const header = 20
		if len(b) < header || int(int32(binary.NativeEndian.Uint32(b[4:]))) != index {
			continue
		}
		parms := wire.Find(b[header:], tcaOptions, tbfParms)
		if unix.ByteSliceToString(wire.Find(b[header:], tcaKind)) != "tbf" || len(parms) < 12 {
			continue
		}
		if have := binary.NativeEndian.Uint32(parms[8:]); have != uint32(min(want.PerSecond, math.MaxUint32)) {
			return fmt.Errorf("device %s passes %d bytes per second, not %d", name, have, want.PerSecond)
		}
		return nil
	}
	return fmt.Errorf("device %s has no token bucket that limits it to %d bytes per second", name, want.PerSecond)
}

func do(c *wire.Conn, what string, messages ...wire.Message) error {
	for _, m := range messages {
		m.Flags |= unix.NLM_F_ACK
		if _, err := c.Do(m); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}
