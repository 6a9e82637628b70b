// Package route makes the kernel's links, addresses, neighbours, forwarding
// entries and routes agree with a program.Net, by netlink. Inputs are
// programs; outputs are a Result, errors that name each failed item, and calls
// of a function when somebody else changed something that concerns them. It
// owns the overlay device with all that is on it, and the routes of table
// main that carry program.Protocol and either use that device or have none;
// it refuses to replace or remove anything else.
//
// An Applier belongs to one goroutine. Its sockets are those of the network
// namespace in which the calling thread is when it is opened.
package route

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/diff"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/program"
)

// Config is what an Applier needs to know beside the programs.
type Config struct {
	// Link is the name of the overlay device.
	Link string
	// Sysctls writes settings: between the making of a device and its
	// going up, so that it is never up with the wrong ones.
	Sysctls func([]program.Sysctl) (diff.Result, error)
	Log     *slog.Logger
}

// Applier keeps a mirror of what the kernel holds of ours: a cache that the
// next Set after Forget reads again, never the truth.
type Applier struct {
	conf   Config
	handle *netlink.Handle
	state  *state  // nil: the kernel must be read first
	events *Events // nil: nobody listens
}

// Open connects to the kernel.
func Open(conf Config) (*Applier, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	// The kernel always answers; should it not, an error is better than a
	// daemon that hangs.
	if err := h.SetSocketTimeout(30 * time.Second); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Applier{conf: conf, handle: h}, nil
}

// Close gives the sockets back and leaves the kernel as it is.
func (a *Applier) Close() { a.handle.Close() }

// Forget has the next Set read the kernel again.
func (a *Applier) Forget() { a.state = nil }

// Set makes the kernel agree with want. Everything new is there before
// anything old goes, and a failed item does not stop the others. The order is
// the kernel's: a route needs its device and, to carry packets from its first
// moment, the neighbour and forwarding entry behind it. Where want has no
// Link, a device that is there goes last.
func (a *Applier) Set(ctx context.Context, want program.Net) (diff.Result, error) {
	target, err := targetOf(want)
	if err != nil {
		return diff.Result{Failed: 1}, err
	}
	if err := ctx.Err(); err != nil {
		return diff.Result{}, err
	}
	link, res, errLink := a.setLink(want)
	if link == nil && errLink != nil {
		return res, errLink
	}
	if a.state == nil {
		if a.state, err = a.readFrom(link); err != nil {
			return res, errors.Join(errLink, err)
		}
	}
	more, err := a.apply(target)
	if err != nil {
		a.Forget() // something is not as the mirror has it
	}
	res, err = res.Plus(more), errors.Join(errLink, err)
	if link != nil && want.Link == (program.VXLAN{}) {
		a.Forget()
		if errDel := a.removeLink(link); errDel != nil {
			return res.Plus(diff.Result{Failed: 1}), errors.Join(err, errDel)
		}
		res.Removed++
	}
	return res, err
}

// apply walks the difference between mirror and target.
func (a *Applier) apply(want *state) (diff.Result, error) {
	var (
		res  diff.Result
		errs []error
	)
	step := func(r diff.Result, err error) {
		res = res.Plus(r)
		if err != nil {
			errs = append(errs, err)
		}
	}
	have, h := a.state, a.handle
	step(diff.Put(have.addrs, want.addrs, a.addAddr, nil))
	step(diff.Put(have.neighs, want.neighs, a.setNeigh, a.setNeigh))
	step(diff.Put(have.fdb, want.fdb, a.setFDB, a.setFDB))
	step(diff.Put(have.routes, want.routes, a.addRoute, a.changeRoute))

	step(diff.Remove(have.routes, want.routes, func(k routeKey, r routeVia) error {
		return named("remove", k, h.RouteDel(a.netlinkRoute(k, r)), unix.ESRCH)
	}))
	step(diff.Remove(have.fdb, want.fdb, func(k cluster.MAC, dst netip.Addr) error {
		return named("remove forwarding entry", k, h.NeighDel(a.netlinkFDB(k, dst)), unix.ENOENT)
	}))
	step(diff.Remove(have.neighs, want.neighs, func(k netip.Addr, mac cluster.MAC) error {
		return named("remove neighbour", k, h.NeighDel(a.netlinkNeigh(k, mac)), unix.ENOENT)
	}))
	step(diff.Remove(have.addrs, want.addrs, func(k netip.Prefix, _ struct{}) error {
		return named("remove address", k, h.AddrDel(have.link, &netlink.Addr{IPNet: ipNet(k)}), unix.EADDRNOTAVAIL)
	}))
	return res, errors.Join(errs...)
}

func (a *Applier) addAddr(p netip.Prefix, _ struct{}) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // the device is point to multipoint: nobody could answer
	}
	return named("add address", p, a.handle.AddrAdd(a.state.link, addr), unix.EEXIST)
}

func (a *Applier) setNeigh(ip netip.Addr, mac cluster.MAC) error {
	return named("set neighbour", ip, a.handle.NeighSet(a.netlinkNeigh(ip, mac)))
}

func (a *Applier) setFDB(mac cluster.MAC, dst netip.Addr) error {
	return named("set forwarding entry", mac, a.handle.NeighSet(a.netlinkFDB(mac, dst)))
}

// addRoute asks for a new route: where somebody else has one to the same
// range with the same metric, it fails instead of taking that one over.
func (a *Applier) addRoute(k routeKey, r routeVia) error {
	err := a.handle.RouteAdd(a.netlinkRoute(k, r))
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("add %s: another program has a route to that range with this metric, remove it: %w", k, err)
	}
	return named("add", k, err)
}

// changeRoute replaces a route at once. The kernel refuses an IPv6 next hop
// which the route that is to be replaced leads elsewhere (a peer's inner
// address, seen from a direct route), so that gets a route of its own meanwhile.
func (a *Applier) changeRoute(k routeKey, r routeVia) error {
	route := a.netlinkRoute(k, r)
	err := a.handle.RouteReplace(route)
	if errors.Is(err, unix.EINVAL) && k.dst.Contains(r.via) {
		hop := &netlink.Route{
			Dst: ipNet(netip.PrefixFrom(r.via, r.via.BitLen())), LinkIndex: route.LinkIndex,
			Protocol: program.Protocol, Table: unix.RT_TABLE_MAIN,
		}
		if err := a.handle.RouteAdd(hop); err != nil {
			return named("add next hop of", k, err)
		}
		err = errors.Join(a.handle.RouteReplace(route), a.handle.RouteDel(hop))
	}
	return named("change", k, err)
}

// named adds to a kernel error what it is about; errors that say "it is so already" are none.
func named(verb string, what any, err error, fine ...error) error {
	if err == nil {
		return nil
	}
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return fmt.Errorf("%s %v: %w", verb, what, err)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
