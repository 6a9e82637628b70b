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
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
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
	batch  *batch
	events *Events // nil: nobody listens

	// mu keeps events from being compared with a Set that is half done.
	mu    sync.Mutex
	state *state // nil: the kernel must be read first
}

// Open connects to the kernel.
func Open(conf Config) (*Applier, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	if err := h.SetSocketTimeout(patience); err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	b, err := newBatch()
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	return &Applier{conf: conf, handle: h, batch: b}, nil
}

// patience is with the kernel, which always answers; should it not, an error
// is better than a daemon that hangs.
const patience = 30 * time.Second

// Close gives the sockets back and leaves the kernel as it is.
func (a *Applier) Close() {
	a.handle.Close()
	a.batch.sock.Close()
}

// Forget has the next Set read the kernel again.
func (a *Applier) Forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.state = nil
}

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
	a.mu.Lock()
	defer a.mu.Unlock()
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
		a.state = nil // something is not as the mirror has it
	}
	res, err = res.Plus(more), errors.Join(errLink, err)
	if link != nil && want.Link == (program.VXLAN{}) {
		a.state = nil
		if errDel := a.removeLink(link); errDel != nil {
			return res.Plus(diff.Result{Failed: 1}), errors.Join(err, errDel)
		}
		res.Removed++
	}
	return res, err
}

// apply walks the difference between mirror and target: all of it is one
// message to the kernel, or a few where it is much.
func (a *Applier) apply(want *state) (diff.Result, error) {
	var p diff.Pass
	have := a.state
	diff.Put(&p, have.addrs, want.addrs, diff.Now(a.addAddr), nil)
	diff.Put(&p, have.neighs, want.neighs, a.setNeigh, a.setNeigh)
	diff.Put(&p, have.fdb, want.fdb, a.setFDB, a.setFDB)
	diff.Put(&p, have.routes, want.routes, a.addRoute, a.changeRoute)

	diff.Remove(&p, have.routes, want.routes, func(k routeKey, v routeVia, done func(error)) {
		a.batch.add(a.routeRequest(unix.RTM_DELROUTE, 0, k, v), func(err error) { done(named("remove", k, err, unix.ESRCH)) })
	})
	diff.Remove(&p, have.fdb, want.fdb, func(k cluster.MAC, dst netip.Addr, done func(error)) {
		a.batch.add(neighRequest(unix.RTM_DELNEIGH, 0, a.netlinkFDB(k, dst)), func(err error) { done(named("remove forwarding entry", k, err, unix.ENOENT)) })
	})
	diff.Remove(&p, have.neighs, want.neighs, func(k netip.Addr, mac cluster.MAC, done func(error)) {
		a.batch.add(neighRequest(unix.RTM_DELNEIGH, 0, a.netlinkNeigh(k, mac)), func(err error) { done(named("remove neighbour", k, err, unix.ENOENT)) })
	})
	a.batch.flush()
	diff.Remove(&p, have.addrs, want.addrs, diff.Now(func(k netip.Prefix, _ struct{}) error {
		return named("remove address", k, a.handle.AddrDel(have.link, &netlink.Addr{IPNet: ipNet(k)}), unix.EADDRNOTAVAIL)
	}))
	return p.Result, p.Err()
}

// What is written whether it is there or not.
const put = unix.NLM_F_CREATE | unix.NLM_F_REPLACE

func (a *Applier) addAddr(p netip.Prefix, _ struct{}) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD // the device is point to multipoint: nobody could answer
	}
	return named("add address", p, a.handle.AddrAdd(a.state.link, addr), unix.EEXIST)
}

func (a *Applier) setNeigh(ip netip.Addr, mac cluster.MAC, done func(error)) {
	a.batch.add(neighRequest(unix.RTM_NEWNEIGH, put, a.netlinkNeigh(ip, mac)), func(err error) { done(named("set neighbour", ip, err)) })
}

func (a *Applier) setFDB(mac cluster.MAC, dst netip.Addr, done func(error)) {
	a.batch.add(neighRequest(unix.RTM_NEWNEIGH, put, a.netlinkFDB(mac, dst)), func(err error) { done(named("set forwarding entry", mac, err)) })
}

// addRoute asks for a new route: where somebody else has one to the same
// range with the same metric, it fails instead of taking that one over.
func (a *Applier) addRoute(k routeKey, v routeVia, done func(error)) {
	a.batch.add(a.routeRequest(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, k, v), func(err error) {
		if errors.Is(err, unix.EEXIST) {
			err = fmt.Errorf("another program has a route to that range with this metric, remove it: %w", err)
		}
		done(named("add", k, err))
	})
}

// changeRoute replaces a route at once. The kernel refuses an IPv6 next hop
// which the route that is to be replaced leads elsewhere (a peer's inner
// address, seen from a direct route), so that gets a route of its own meanwhile.
func (a *Applier) changeRoute(k routeKey, v routeVia, done func(error)) {
	replace := a.routeRequest(unix.RTM_NEWROUTE, put, k, v)
	a.batch.add(replace, func(err error) {
		if errors.Is(err, unix.EINVAL) && k.dst.Contains(v.via) {
			err = a.changeByHop(replace, v)
		}
		done(named("change", k, err))
	})
}

func (a *Applier) changeByHop(replace *nl.NetlinkRequest, v routeVia) error {
	hop := &netlink.Route{
		Dst: ipNet(netip.PrefixFrom(v.via, v.via.BitLen())), LinkIndex: a.index(v),
		Protocol: program.Protocol, Table: unix.RT_TABLE_MAIN,
	}
	if err := a.handle.RouteAdd(hop); err != nil {
		return named("add next hop", v.via, err)
	}
	again := a.batch.send([]request{{NetlinkRequest: replace}})
	return errors.Join(again[0], a.handle.RouteDel(hop))
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
