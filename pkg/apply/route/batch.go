package route

import (
	"encoding/binary"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/program"
)

// batch is requests that go to the kernel in one message, in their order. The
// kernel goes on past one that fails, and answers those, and the last: what
// a thousand nodes cost that join at once is not four thousand system calls.
type batch struct {
	sock     *nl.NetlinkSocket
	waiting  []request
	seq      uint32
	messages int // how many went to the kernel
}

type request struct {
	*nl.NetlinkRequest
	done func(error)
}

// perMessage bounds a message, so that the socket's buffers hold it, and the
// answers too if all of its requests fail.
const perMessage = 128

func newBatch() (*batch, error) {
	sock, err := nl.Subscribe(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := sock.SetReceiveTimeout(&unix.Timeval{Sec: int64(patience / time.Second)}); err != nil {
		return nil, err
	}
	return &batch{sock: sock}, nil
}

// add has done called with what became of the request, at the next flush.
func (b *batch) add(r *nl.NetlinkRequest, done func(error)) {
	b.waiting = append(b.waiting, request{r, done})
}

func (b *batch) flush() {
	waiting := b.waiting
	b.waiting = nil
	for part := range slices.Chunk(waiting, perMessage) {
		for i, err := range b.send(part) {
			part[i].done(err)
		}
	}
}

// send returns an error for each request, nil where it was done.
func (b *batch) send(part []request) []error {
	first := b.seq + 1
	var text []byte
	for i, r := range part {
		b.seq++
		r.Seq = b.seq
		if i == len(part)-1 {
			r.Flags |= unix.NLM_F_ACK
		}
		text = append(text, r.Serialize()...)
	}
	errs := make([]error, len(part))
	b.messages++
	err := unix.Sendto(b.sock.GetFd(), text, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
	for answered := false; err == nil && !answered; {
		answered, err = b.receive(first, errs)
	}
	if err != nil {
		// Nobody knows what the kernel has done: the list will tell.
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// receive reads some of the answers, and says whether the last is among them.
func (b *batch) receive(first uint32, errs []error) (last bool, err error) {
	answers, _, err := b.sock.Receive()
	if err != nil {
		return false, err
	}
	for _, m := range answers {
		i := int(m.Header.Seq - first)
		if i < 0 || i >= len(errs) || m.Header.Type != unix.NLMSG_ERROR || len(m.Data) < 4 {
			continue // an answer that came too late for an earlier message
		}
		if errno := -int32(binary.NativeEndian.Uint32(m.Data)); errno != 0 {
			errs[i] = unix.Errno(errno)
		}
		last = last || i == len(errs)-1
	}
	return last, nil
}

// neighRequest is about a neighbour or a forwarding entry.
func neighRequest(command, flags int, n *netlink.Neigh) *nl.NetlinkRequest {
	family := n.Family
	if family == 0 {
		family = nl.GetIPFamily(n.IP)
	}
	r := nl.NewNetlinkRequest(command, flags)
	r.AddData(&netlink.Ndmsg{Family: uint8(family), Index: uint32(n.LinkIndex), State: uint16(n.State), Flags: uint8(n.Flags)})
	r.AddData(nl.NewRtAttr(netlink.NDA_DST, n.IP))
	r.AddData(nl.NewRtAttr(netlink.NDA_LLADDR, n.HardwareAddr))
	return r
}

// routeRequest is about a route of table main.
func (a *Applier) routeRequest(command, flags int, k routeKey, v routeVia) *nl.NetlinkRequest {
	m := nl.NewRtMsg()
	m.Family, m.Dst_len, m.Protocol = unix.AF_INET, uint8(k.dst.Bits()), program.Protocol
	if k.dst.Addr().Is6() {
		m.Family = unix.AF_INET6
	}
	if command == unix.RTM_DELROUTE {
		m.Scope = unix.RT_SCOPE_NOWHERE // any
	}
	r := nl.NewNetlinkRequest(command, flags)
	r.AddData(m)
	r.AddData(nl.NewRtAttr(unix.RTA_DST, k.dst.Addr().AsSlice()))
	if k.metric != 0 {
		r.AddData(nl.NewRtAttr(unix.RTA_PRIORITY, nl.Uint32Attr(uint32(k.metric))))
	}
	if v.dev == 0 {
		m.Type = unix.RTN_UNREACHABLE
		return r
	}
	m.Flags = unix.RTNH_F_ONLINK
	r.AddData(nl.NewRtAttr(unix.RTA_GATEWAY, v.via.AsSlice()))
	r.AddData(nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(a.index(v)))))
	if v.mtu != 0 {
		metrics := nl.NewRtAttr(unix.RTA_METRICS, nil)
		metrics.AddRtAttr(unix.RTAX_MTU, nl.Uint32Attr(uint32(v.mtu)))
		r.AddData(metrics)
	}
	return r
}

// index is that of the device by which a route leads.
func (a *Applier) index(v routeVia) int {
	if v.dev == byOverlay {
		return a.state.link.Index
	}
	return v.dev
}
