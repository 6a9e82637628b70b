// Package inspect reads what a network namespace holds: links, routes,
// neighbours, sockets, sysctls. Inputs are the namespace of the calling
// thread, or a pod's, and the flows in question; outputs are facts. What
// cannot be read is an error beside what could. It refuses to change
// anything, and to judge.
package inspect

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/listening"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/vip"
)

// Options say how much is read.
type Options struct {
	// Flows narrow what is listed to what concerns their addresses.
	Flows []facts.Flow
	// Mark says what rules write on a packet that comes in by a device, before
	// it is routed; nil writes nothing.
	Mark func(f facts.Flow, in string) uint32
	// Also are addresses that concern the question, though no flow has them.
	Also []netip.Addr
	// Links are names of pods' links that concern it, though no route leads there.
	Links []string
	// Sockets lists who listens.
	Sockets bool
	// Sysctls are listed by their paths below /proc/sys/net.
	Sysctls []string
}

// Network reads the namespace of the calling thread.
func Network(o Options) (*facts.Network, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	defer h.Close()
	r := reader{Options: o, handle: h, names: map[int]string{}, out: &facts.Network{}}
	for _, f := range o.Flows {
		r.about = append(r.about, f.Src, f.To.Addr())
	}
	r.about = append(r.about, o.Also...)
	errs := []error{r.links(), r.routes(), r.decisions(), r.neighbours()}
	r.settings()
	if o.Sockets {
		errs = append(errs, r.sockets())
	}
	r.narrow()
	return r.out, errors.Join(errs...)
}

type reader struct {
	Options
	handle *netlink.Handle
	about  []netip.Addr
	names  map[int]string // of links, by index
	out    *facts.Network
}

func (r *reader) links() error {
	list, err := retry(r.handle.LinkList)
	if err != nil {
		return fmt.Errorf("list links: %w", err)
	}
	addrs, err := retry(func() ([]netlink.Addr, error) { return r.handle.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	queues, err := r.queues()
	if err != nil {
		return err
	}
	held := map[int][]netip.Prefix{}
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok {
			held[a.LinkIndex] = append(held[a.LinkIndex], p)
		}
	}
	for _, l := range list {
		a := l.Attrs()
		r.names[a.Index] = a.Name
		f := facts.Link{
			Index: a.Index, Name: a.Name, Kind: l.Type(), MAC: a.HardwareAddr.String(), MTU: a.MTU, Group: a.Group,
			Up: a.Flags&net.FlagUp != 0, Running: a.RawFlags&unix.IFF_RUNNING != 0, Addresses: held[a.Index],
			Queue: queues[a.Index], Settings: ofLink(a.Name),
		}
		if v, ok := l.(*netlink.Vxlan); ok {
			local, _ := netip.AddrFromSlice(v.SrcAddr)
			f.VXLAN = &facts.VXLAN{VNI: uint32(v.VxlanId), Port: uint16(v.Port), Local: local.Unmap()}
		}
		r.out.Links = append(r.out.Links, f)
	}
	return nil
}

// queues are the kinds of root queueing disciplines, by link.
func (r *reader) queues() (map[int]string, error) {
	list, err := retry(func() ([]netlink.Qdisc, error) { return r.handle.QdiscList(nil) })
	if err != nil {
		return nil, fmt.Errorf("list queueing disciplines: %w", err)
	}
	kinds := map[int]string{}
	for _, q := range list {
		if a := q.Attrs(); a.Parent == netlink.HANDLE_ROOT {
			kinds[a.LinkIndex] = q.Type()
		}
	}
	return kinds, nil
}

// tree is that of the calling thread's namespace.
const tree = "/proc/sys/net"

// ofLink are the settings of a device that decide whether packets pass.
func ofLink(name string) map[string]int {
	settings := map[string]int{}
	for _, key := range []string{"ipv4/rp_filter", "ipv4/forwarding", "ipv6/forwarding", "ipv6/disable_ipv6"} {
		family, file, _ := strings.Cut(key, "/")
		text, err := os.ReadFile(filepath.Join(tree, family, "conf", name, file))
		if v, errNumber := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && errNumber == nil {
			settings[key] = v
		}
	}
	return settings
}

func (r *reader) settings() {
	r.out.Sysctls = map[string]string{}
	for _, key := range r.Sysctls {
		text, err := os.ReadFile(filepath.Join(tree, key))
		if err == nil { // a kernel may lack the feature
			r.out.Sysctls[key] = strings.TrimSpace(string(text))
		}
	}
}

// narrow leaves out the links of pods that are not in question. One that is
// down has lost its routes, and may be.
func (r *reader) narrow() {
	if len(r.about) == 0 {
		return
	}
	used := map[string]bool{}
	for _, name := range r.Options.Links {
		used[name] = true
	}
	for _, x := range r.out.Routes {
		used[x.Dev] = true
	}
	for _, d := range r.out.Decisions {
		used[d.Dev], used[d.In] = true, true
	}
	r.out.Links = slices.DeleteFunc(r.out.Links, func(l facts.Link) bool { return l.Group == vip.PodGroup && l.Up && !used[l.Name] })
}

func (r *reader) routes() error {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	list, err := retry(func() ([]netlink.Route, error) {
		return r.handle.RouteListFiltered(netlink.FAMILY_ALL, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil {
		return fmt.Errorf("list routes: %w", err)
	}
	for _, x := range list {
		f := facts.Route{Kind: kinds[x.Type], Dev: r.names[x.LinkIndex], Protocol: int(x.Protocol), Metric: x.Priority, MTU: x.MTU}
		if f.Dst, _ = prefixOf(x.Dst); !f.Dst.IsValid() {
			f.Dst = everything(x.Family)
		}
		if f.Dst.Addr().IsLinkLocalUnicast() || f.Dst.Addr().IsMulticast() {
			continue
		}
		f.Via, f.Src = addr(x.Gw), addr(x.Src)
		if len(r.about) == 0 || slices.ContainsFunc(r.about, f.Dst.Contains) {
			r.out.Routes = append(r.out.Routes, f)
		}
	}
	return nil
}

var kinds = map[int]string{
	unix.RTN_UNICAST: "unicast", unix.RTN_LOCAL: "local", unix.RTN_UNREACHABLE: "unreachable",
	unix.RTN_BLACKHOLE: "blackhole", unix.RTN_PROHIBIT: "prohibit",
}

func everything(family int) netip.Prefix {
	if family == unix.AF_INET6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// decisions asks the kernel about both directions of each flow: rules of
// routing, other tables and the reverse path check have their say.
func (r *reader) decisions() error {
	for _, f := range r.Flows {
		there, back := f, facts.Flow{Src: f.To.Addr(), To: netip.AddrPortFrom(f.Src, 0), Proto: f.Proto}
		r.decide(there, back)
		if f.Src.IsValid() {
			r.decide(back, there)
		}
	}
	return nil
}

// decide asks about a packet, to which the other is the answer.
func (r *reader) decide(f, answer facts.Flow) {
	src, dst := f.Src, f.To.Addr()
	if _, known := r.out.Decision(src, dst); known {
		return
	}
	d := facts.Decision{Src: src, Dst: dst}
	o := &netlink.RouteGetOptions{}
	if src.IsValid() {
		o.SrcAddr = src.AsSlice()
		if _, own := r.out.Holder(src); !own {
			// It comes in from where answers to it go.
			back, err := r.wayBack(answer)
			if err != nil {
				d.Error = fmt.Sprintf("no route back to %s: %v", src, err)
				r.out.Decisions = append(r.out.Decisions, d)
				return
			}
			o.IifIndex, d.In = back, r.names[back]
			d.Mark = r.mark(f, d.In)
			o.Mark = d.Mark
		}
	}
	found, err := r.handle.RouteGetWithOptions(dst.AsSlice(), o)
	switch {
	case err != nil:
		d.Error = err.Error()
	case len(found) == 0:
		d.Error = "no route"
	default:
		x := found[0]
		d.Local, d.Via, d.Dev, d.MTU = x.Type == unix.RTN_LOCAL, addr(x.Gw), r.names[x.LinkIndex], x.MTU
		if kind := kinds[x.Type]; kind == "unreachable" || kind == "blackhole" || kind == "prohibit" {
			d.Error = kind
		}
	}
	r.out.Decisions = append(r.out.Decisions, d)
}

// wayBack is the device by which an answer leaves.
func (r *reader) wayBack(answer facts.Flow) (index int, err error) {
	o := &netlink.RouteGetOptions{}
	if from, err := r.handle.RouteGet(answer.Src.AsSlice()); err == nil && len(from) > 0 {
		o.Mark = r.mark(answer, r.names[from[0].LinkIndex])
	}
	found, err := r.handle.RouteGetWithOptions(answer.To.Addr().AsSlice(), o)
	if err == nil && len(found) == 0 {
		err = errors.New("no route")
	}
	if err != nil {
		return 0, err
	}
	return found[0].LinkIndex, nil
}

func (r *reader) mark(f facts.Flow, in string) uint32 {
	if r.Mark == nil {
		return 0
	}
	return r.Mark(f, in)
}

// neighbours are those on the ways of the question: what routes lead to, and
// where the overlay sends what is for them.
func (r *reader) neighbours() error {
	wanted := map[netip.Addr]bool{}
	for _, x := range r.out.Routes {
		wanted[x.Via] = true
	}
	for _, d := range r.out.Decisions {
		wanted[d.Via] = true
	}
	list, err := retry(func() ([]netlink.Neigh, error) { return r.handle.NeighList(0, netlink.FAMILY_ALL) })
	if err != nil {
		return fmt.Errorf("list neighbours: %w", err)
	}
	all := len(r.about) == 0
	macs := map[string]bool{}
	for _, n := range list {
		a := addr(n.IP)
		if n.Family == unix.AF_BRIDGE || a.IsMulticast() || !all && !wanted[a] && !slices.Contains(r.about, a) {
			continue
		}
		f := facts.Neigh{Addr: a, Dev: r.names[n.LinkIndex], MAC: n.HardwareAddr.String(), State: state(n.State)}
		if f.State != "noarp" {
			macs[f.MAC] = true
			r.out.Neighs = append(r.out.Neighs, f)
		}
	}
	for _, l := range r.out.Links {
		if l.VXLAN == nil {
			continue
		}
		entries, err := retry(func() ([]netlink.Neigh, error) { return r.handle.NeighList(l.Index, unix.AF_BRIDGE) })
		if err != nil {
			return fmt.Errorf("list forwarding entries of %s: %w", l.Name, err)
		}
		for _, e := range entries {
			if f := (facts.Forward{MAC: e.HardwareAddr.String(), Dst: addr(e.IP)}); f.Dst.IsValid() && (all || macs[f.MAC] || slices.Contains(r.about, f.Dst)) {
				r.out.FDB = append(r.out.FDB, f)
			}
		}
	}
	return nil
}

func state(s int) string {
	for bit, name := range map[int]string{
		netlink.NUD_PERMANENT: "permanent", netlink.NUD_REACHABLE: "reachable", netlink.NUD_STALE: "stale", netlink.NUD_DELAY: "delay",
		netlink.NUD_PROBE: "probe", netlink.NUD_FAILED: "failed", netlink.NUD_INCOMPLETE: "incomplete", netlink.NUD_NOARP: "noarp",
	} {
		if s&bit != 0 {
			return name
		}
	}
	return "none"
}

// acceptTime is how long a process may leave connections alone. The answer
// waits for it only where some wait.
const acceptTime = 500 * time.Millisecond

func (r *reader) sockets() error {
	list, err := listening.Stuck(acceptTime)
	for _, s := range list {
		r.out.Sockets = append(r.out.Sockets, facts.Socket(s))
	}
	return err
}

// retry repeats a list that changed while it was read.
func retry[T any](list func() ([]T, error)) (items []T, err error) {
	for range 10 {
		if items, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return items, err
}

func addr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func prefixOf(n *net.IPNet) (netip.Prefix, bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	ones, bits := n.Mask.Size()
	a := addr(n.IP)
	if a.BitLen() != bits {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(a, ones), true
}
