// Package podlink reads how the kernel has the node's ends of pods' links.
// Input is the group that these links carry; outputs are their names, MTUs and
// sysctls. It refuses to change anything.
//
// A daemon asks more than once a second for as long as it lives. So all links
// are one request, which holds their sysctls too where files would be a
// thousand, and reading the answer leaves no garbage: collecting it costs the
// daemon as much as the reading.
package podlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

// Link is the node's end of a pod's link. It is good until the next list.
type Link struct {
	MTU  int
	name []byte
	// the device's sysctls, as arrays of 32 bits in the kernel's order
	conf4, conf6 []byte
}

// Name is the device's.
func (l Link) Name() string { return nl.BytesToString(l.name) }

// Where sysctls stand in the arrays (linux/ip.h counts from 1, linux/ipv6.h from 0).
var (
	places4 = map[string]int{"forwarding": 0, "accept_redirects": 3, "send_redirects": 5, "rp_filter": 7}
	places6 = map[string]int{"accept_ra": 3, "accept_redirects": 4, "autoconf": 5}
)

// Setting is a sysctl of the link; known is false for one that this package,
// or a kernel without IPv6, knows nothing of.
func (l Link) Setting(family, name string) (value int, known bool) {
	places, conf := places4, l.conf4
	if family == "ipv6" {
		places, conf = places6, l.conf6
	}
	i, known := places[name]
	if !known || len(conf) < 4*(i+1) {
		return 0, false
	}
	return int(int32(number(conf[4*i:]))), true
}

// Reader asks the kernel. It belongs to one goroutine.
type Reader struct {
	sock  int
	ask   []byte
	seq   uint32
	heard []byte // all of an answer, and room for the next
	links []Link
}

const (
	// skipStats leaves counters out (RTEXT_FILTER_SKIP_STATS).
	skipStats = 8
	// part is the most that the kernel gives out at once, in bytes.
	part = 1 << 15
	// patience is with the kernel, which always answers, in seconds.
	patience = 30
)

// Open connects to the kernel of the network namespace in which the calling
// thread is.
func Open() (*Reader, error) {
	sock, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.SetsockoptTimeval(sock, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: patience})
	}
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	ask := nl.NewNetlinkRequest(unix.RTM_GETLINK, unix.NLM_F_DUMP)
	ask.AddData(nl.NewIfInfomsg(unix.AF_UNSPEC))
	ask.AddData(nl.NewRtAttr(unix.IFLA_EXT_MASK, nl.Uint32Attr(skipStats)))
	return &Reader{sock: sock, ask: ask.Serialize()}, nil
}

// Close gives the socket back.
func (r *Reader) Close() { _ = unix.Close(r.sock) }

// errInterrupted is a list that changed while it was given out, and may lack
// something.
var errInterrupted = errors.New("it keeps changing")

// List lists the links of a group.
func (r *Reader) List(group uint32) ([]Link, error) {
	err := errInterrupted
	for try := 0; try < 20 && errors.Is(err, errInterrupted); try++ {
		err = r.list(group)
	}
	if err != nil {
		return nil, fmt.Errorf("list the pods' links: %w", err)
	}
	return r.links, nil
}

func (r *Reader) list(group uint32) error {
	r.seq++
	binary.NativeEndian.PutUint32(r.ask[8:], r.seq)
	if _, err := unix.Write(r.sock, r.ask); err != nil {
		return err
	}
	r.heard, r.links = r.heard[:0], r.links[:0]
	interrupted := false
	for {
		// Where this moves what was heard, links keep what they point into.
		r.heard = slices.Grow(r.heard, part)
		n, err := unix.Read(r.sock, r.heard[len(r.heard):cap(r.heard)])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		messages := r.heard[len(r.heard) : len(r.heard)+n]
		r.heard = r.heard[:len(r.heard)+n]
		for len(messages) >= unix.SizeofNlMsghdr {
			size := int(number(messages))
			if size < unix.SizeofNlMsghdr || size > len(messages) {
				return fmt.Errorf("a message of %d bytes in the last %d", size, len(messages))
			}
			header, body := messages[:unix.SizeofNlMsghdr], messages[unix.SizeofNlMsghdr:size]
			messages = messages[min((size+3)&^3, len(messages)):]
			if number(header[8:]) != r.seq {
				continue // of a list that was given up
			}
			interrupted = interrupted || half(header[6:])&unix.NLM_F_DUMP_INTR != 0
			switch half(header[4:]) {
			case unix.NLMSG_DONE, unix.NLMSG_ERROR:
				if len(body) >= 4 && number(body) != 0 {
					return unix.Errno(-int32(number(body)))
				}
				if interrupted {
					return errInterrupted
				}
				return nil
			case unix.RTM_NEWLINK:
				r.take(body, group)
			}
		}
	}
}

// take keeps a link of the group.
func (r *Reader) take(body []byte, group uint32) {
	if len(body) < unix.SizeofIfInfomsg {
		return
	}
	var (
		l  Link
		in uint32
	)
	for kind, v := range wire.Each(body[unix.SizeofIfInfomsg:]) {
		switch {
		case kind == unix.IFLA_IFNAME:
			l.name = v
		case kind == unix.IFLA_MTU && len(v) == 4:
			l.MTU = int(number(v))
		case kind == unix.IFLA_GROUP && len(v) == 4:
			in = number(v)
		case kind == unix.IFLA_AF_SPEC:
			l.conf4 = wire.Find(v, unix.AF_INET, 1)  // IFLA_INET_CONF
			l.conf6 = wire.Find(v, unix.AF_INET6, 2) // IFLA_INET6_CONF
		}
	}
	if in == group {
		r.links = append(r.links, l)
	}
}

func number(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

func half(b []byte) uint16 { return binary.NativeEndian.Uint16(b) }
