// Package kernel looks at nf_tables of a network namespace from outside: how
// far a program is that writes there, and when a change of its was complete.
// Inputs are the file of a namespace, and what to wait for; outputs are counts
// and times. It changes nothing, and refuses kernels that do not tell how many
// elements a map has (before 6.17).
package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/wire"
)

func dial(namespace string, groups uint32) (*netlink.Conn, error) {
	ns, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer ns.Close()
	return netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: int(ns.Fd()), Groups: groups})
}

// Conn asks nf_tables of a namespace.
type Conn struct{ sock *netlink.Conn }

// Open connects to a namespace.
func Open(namespace string) (Conn, error) {
	sock, err := dial(namespace, 0)
	return Conn{sock}, err
}

// Close ends the connection.
func (c Conn) Close() { c.sock.Close() }

func (c Conn) ask(kind int, family byte, attrs wire.Attrs) ([]byte, error) {
	answers, err := c.sock.Execute(netlink.Message{
		Header: netlink.Header{Type: netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | kind), Flags: netlink.Request},
		Data:   append([]byte{family, unix.NFNETLINK_V0, 0, 0}, attrs...),
	})
	if err != nil {
		return nil, err
	}
	return answers[0].Data[4:], nil
}

// Generation changes with every transaction.
func (c Conn) Generation() (uint32, error) {
	b, err := c.ask(unix.NFT_MSG_GETGEN, unix.AF_UNSPEC, nil)
	return wire.Number(wire.Find(b, unix.NFTA_GEN_ID)), err
}

// setCount is NFTA_SET_COUNT (6.17).
const setCount = 20

// Elements is how many there are in a map; none where it is not there.
func (c Conn) Elements(family byte, table, set string) (uint32, error) {
	var w wire.Attrs
	w.Text(unix.NFTA_SET_TABLE, table)
	w.Text(unix.NFTA_SET_NAME, set)
	return c.count(unix.NFT_MSG_GETSET, family, "map "+set, w, setCount)
}

// Rules is how many there are in a chain, with what jumps to it; none where it
// is not there.
func (c Conn) Rules(family byte, table, chain string) (uint32, error) {
	var w wire.Attrs
	w.Text(unix.NFTA_CHAIN_TABLE, table)
	w.Text(unix.NFTA_CHAIN_NAME, chain)
	return c.count(unix.NFT_MSG_GETCHAIN, family, "chain "+chain, w, unix.NFTA_CHAIN_USE)
}

// count is a number that the kernel tells of something.
func (c Conn) count(kind int, family byte, what string, which wire.Attrs, attr uint16) (uint32, error) {
	b, err := c.ask(kind, family, which)
	if errors.Is(err, unix.ENOENT) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("look at %s: %w", what, err)
	}
	count := wire.Find(b, attr)
	if count == nil {
		return 0, fmt.Errorf("the kernel does not tell how much %s holds: use Linux 6.17 or newer", what)
	}
	return wire.Number(count), nil
}

const (
	// look is how often the kernel is asked.
	look = 2 * time.Millisecond
	// quiet is how long nothing must change for a start to be over.
	quiet = 2 * time.Second
)

// Settled returns when the last transaction was: nothing has changed for a
// while after what is awaited was there. alive is an error when there is
// nobody left who would change anything.
func (c Conn) Settled(limit time.Duration, alive func() error, there func() (bool, error)) (last time.Time, err error) {
	before, complete := uint32(0), false
	for began := time.Now(); time.Since(began) < limit; time.Sleep(look) {
		if err := alive(); err != nil {
			return last, err
		}
		now, err := c.Generation()
		if err != nil {
			return last, err
		}
		if now != before {
			before, last = now, time.Now()
			if complete, err = there(); err != nil {
				return last, err
			}
		}
		if complete && time.Since(last) > quiet {
			return last, nil
		}
	}
	return last, fmt.Errorf("the kernel does not hold what it should after %v", limit)
}

// Transaction is one that the kernel has announced.
type Transaction struct {
	At    time.Time
	Bytes int // of what it announced
}

// Monitor hears what is changed.
type Monitor struct {
	sock *netlink.Conn
	done chan struct{}

	mu    sync.Mutex
	want  []byte
	found chan Transaction
}

// Watch begins to listen in a namespace.
func Watch(namespace string) (*Monitor, error) {
	sock, err := dial(namespace, 1<<(unix.NFNLGRP_NFTABLES-1))
	if err != nil {
		return nil, err
	}
	if err := sock.SetReadBuffer(16 << 20); err != nil {
		sock.Close()
		return nil, err
	}
	m := &Monitor{sock: sock, done: make(chan struct{})}
	go m.run()
	return m, nil
}

// Close ends it.
func (m *Monitor) Close() {
	m.sock.Close()
	<-m.done
}

// Expect returns a channel for the first transaction that writes an address.
func (m *Monitor) Expect(a netip.Addr) <-chan Transaction {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.want, m.found = a.AsSlice(), make(chan Transaction, 1)
	return m.found
}

func (m *Monitor) run() {
	defer close(m.done)
	size, hit := 0, false
	for {
		messages, err := m.sock.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue // not of a change that is waited for: they are small
		}
		if err != nil {
			return
		}
		now := time.Now()
		m.mu.Lock()
		for _, msg := range messages {
			size += len(msg.Data)
			hit = hit || m.want != nil && bytes.Contains(msg.Data, m.want)
			if msg.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
				if hit {
					m.found <- Transaction{now, size}
					m.want = nil
				}
				size, hit = 0, false
			}
		}
		m.mu.Unlock()
	}
}
