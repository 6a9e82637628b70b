// Package observe follows packets through one network namespace: a table of its
// own at both ends of each hook marks those of some flows for nftables' trace
// and counts them, and the trace tells which chains of anybody saw them and what
// dropped them. Inputs are flows; outputs are sightings. The table belongs to
// the socket that made it, so the kernel removes it when the process ends,
// however it ends. It refuses to change what happens to any packet.
package observe

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/program/nft"
)

// Prefix begins the name of the table; a number follows, so that two people
// may trace at the same time.
const Prefix = "poplin-probe-"

// flagOwner of linux/netfilter/nf_tables.h (5.12), without persist.
const flagOwner = 0x2

// most bounds what is kept of a trace.
const most = 4096

// number tells tables of one process apart.
var number atomic.Uint32

// points are our chains: before everybody else's, and after them. The end of
// forward and postrouting stands before the confirmation of a connection.
var points = []nft.Chain{
	{Name: "prerouting-begin", Hook: "prerouting", Priority: -450}, {Name: "input-end", Hook: "input", Priority: last},
	{Name: "forward-end", Hook: "forward", Priority: last}, {Name: "output-begin", Hook: "output", Priority: -450},
	{Name: "postrouting-end", Hook: "postrouting", Priority: last},
}

const last = 1<<31 - 3

// Observer is at work until it is closed.
type Observer struct {
	table  string
	owner  *netlink.Conn
	trace  *netlink.Conn
	reader *nftables.Conn
	flows  []facts.Flow
	port   uint16 // of the overlay
	hooks  map[string]string
	links  map[uint32]string
	done   chan struct{}

	packets map[uint32]packet // on their way, for read
	seen    []facts.Sighting  // for read, and for Close after it
	first   chan struct{}
}

// packet is what is said once of a packet in a chain.
type packet struct {
	src, dst netip.AddrPort
	hook     string
}

// Open begins, in the calling thread's network namespace.
func Open(flows []facts.Flow, overlay uint16) (o *Observer, err error) {
	o = &Observer{
		table: fmt.Sprintf("%s%d-%d", Prefix, os.Getpid(), number.Add(1)), flows: flows, port: overlay, packets: map[uint32]packet{},
		hooks: map[string]string{}, links: map[uint32]string{}, first: make(chan struct{}), done: make(chan struct{}),
	}
	if o.trace, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err != nil {
		return nil, fmt.Errorf("open socket for traces: %w", err)
	}
	if o.owner, err = netlink.Dial(unix.NETLINK_NETFILTER, nil); err == nil {
		_ = o.trace.SetReadBuffer(1 << 20)
		if err = o.trace.JoinGroup(unix.NFNLGRP_NFTRACE); err == nil {
			err = o.build(flows, overlay)
		}
		err = errors.Join(err, o.list())
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("watch packets: %w", err), o.shut())
	}
	go o.read()
	return o, nil
}

// build makes table, chains and rules in one transaction.
func (o *Observer) build(flows []facts.Flow, overlay uint16) error {
	b := wire.NewBatch(o.table)
	var w wire.Attrs
	w.Text(unix.NFTA_TABLE_NAME, o.table)
	w.U32(unix.NFTA_TABLE_FLAGS, flagOwner)
	b.Add(unix.NFT_MSG_NEWTABLE, netlink.Create|netlink.Excl, w)
	for _, c := range points {
		c.Type = "filter"
		b.AddChain(c)
		for _, f := range flows {
			for _, back := range []bool{false, true} {
				b.Add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, rule(o.table, c.Name, match(f, back)))
				b.Add(unix.NFT_MSG_NEWRULE, netlink.Create|netlink.Append, rule(o.table, c.Name, around(f, back, overlay)))
			}
		}
	}
	return b.Send(o.owner)
}

// list learns which hook each chain is at, and the names of links.
func (o *Observer) list() (err error) {
	if o.reader, err = nftables.New(nftables.AsLasting()); err != nil {
		return err
	}
	byNumber := map[uint32]string{}
	for hook, n := range wire.Hooks {
		byNumber[n] = hook
	}
	all, err := o.reader.ListChains()
	for _, c := range all {
		if c.Hooknum != nil {
			o.hooks[name(c.Table.Family, c.Table.Name, c.Name)] = byNumber[uint32(*c.Hooknum)]
		}
	}
	links, errLinks := net.Interfaces()
	for _, l := range links {
		o.links[uint32(l.Index)] = l.Name
	}
	return errors.Join(err, errLinks)
}

// First is closed when a packet was seen.
func (o *Observer) First() <-chan struct{} { return o.first }

// Close ends, and says what was seen, and how many packets each point counted.
func (o *Observer) Close() (seen []facts.Sighting, counted map[string]uint64, err error) {
	counted, rules, err := o.counts()
	_ = o.trace.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // what is on its way
	<-o.done
	seen = o.seen[:0]
	for _, s := range o.seen {
		// Rules are four for each flow: its packets, those around them, and the
		// same of answers.
		if n, known := rules[s.Handle]; s.Point != "" && known {
			s.Of, s.Back, s.Outer = o.flows[n/4].To, n%4 >= 2, n%2 == 1
		} else if s.Point != "" {
			continue // the end of our chain
		}
		seen = append(seen, s)
	}
	return seen, counted, errors.Join(err, o.shut())
}

func (o *Observer) shut() (err error) {
	for _, c := range []*netlink.Conn{o.trace, o.owner} {
		if c != nil {
			err = errors.Join(err, c.Close())
		}
	}
	if o.reader != nil {
		err = errors.Join(err, o.reader.CloseLasting())
	}
	return err
}

func (o *Observer) counts() (map[string]uint64, map[uint64]int, error) {
	counted := map[string]uint64{}
	rules := map[uint64]int{} // numbers within their chains, by handle
	for _, c := range points {
		t := &nftables.Table{Name: o.table, Family: nftables.TableFamilyINet}
		list, err := o.reader.GetRules(t, &nftables.Chain{Name: c.Name, Table: t})
		if err != nil {
			return nil, nil, fmt.Errorf("read counters of table %s: %w", o.table, err)
		}
		for i, r := range list {
			counted[c.Name] += packets(r)
			rules[r.Handle] = i
		}
	}
	return counted, rules, nil
}

// read takes messages of the trace.
func (o *Observer) read() {
	defer close(o.done)
	for {
		messages, err := o.trace.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue // counters know how many there were
		}
		if err != nil {
			return
		}
		for _, m := range messages {
			if len(m.Data) > 4 && m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_TRACE {
				o.take(m.Data[0], m.Data[4:])
			}
		}
	}
}

func name(family nftables.TableFamily, table, chain string) string {
	return map[nftables.TableFamily]string{
		nftables.TableFamilyINet: "inet", nftables.TableFamilyIPv4: "ip", nftables.TableFamilyIPv6: "ip6",
	}[family] + " " + table + " " + chain
}

// addresses reads what a trace has of headers.
func addresses(network, transport []byte) (src, dst netip.AddrPort) {
	at := 0
	switch {
	case len(network) >= 20 && network[0]>>4 == 4:
		at = 12
	case len(network) >= 40 && network[0]>>4 == 6:
		at = 8
	default:
		return src, dst
	}
	size := map[int]int{12: 4, 8: 16}[at]
	a, _ := netip.AddrFromSlice(network[at : at+size])
	b, _ := netip.AddrFromSlice(network[at+size : at+2*size])
	if len(transport) < 4 {
		return src, dst
	}
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(transport)), netip.AddrPortFrom(b, binary.BigEndian.Uint16(transport[2:]))
}
