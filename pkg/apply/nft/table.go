// Package nft makes the nftables table `inet poplin` agree with the modules'
// programs, by netlink. Inputs are programs, one for each module; outputs are
// a Result and errors that name table, set or chain. It never flushes at
// start: it lists what an earlier process left and sends the difference. It
// refuses to touch any other table, and within its own whatever does not bear
// the module's name.
//
// Where the kernel can (6.9), the table carries the flags owner and persist:
// no other program can change it or flush it away, and it survives its owner.
// Ownership belongs to a socket, so one Table is opened for the process and
// shared by all modules. Its methods may be called from any goroutine.
package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/pkg/apply/monitor"
)

// Name is the table's name; its family is inet.
const Name = "poplin"

// Table flags of linux/netfilter/nf_tables.h that golang.org/x/sys lacks.
const (
	flagOwner   = 0x2 // 5.12
	flagPersist = 0x4 // 6.9
)

// Config is how a Table is used.
type Config struct {
	// Plain makes a table without owner, as on a kernel that knows none.
	Plain bool
	Log   *slog.Logger
}

// Table is our table, through one lasting socket.
type Table struct {
	conf Config
	// others hears what other programs do to the table.
	others *monitor.Monitor

	mu     sync.Mutex // guards the following
	conn   *nftables.Conn
	sock   *netlink.Conn // the socket inside conn: it is the owner
	table  *nftables.Table
	mirror *mirror // nil: the kernel must be read first
	lastID uint32  // of sets within a batch
}

// Open connects to the kernel of the calling thread's network namespace, and
// changes nothing there.
func Open(conf Config) (*Table, error) {
	t := newTable(conf, Name)
	var err error
	if t.others, err = monitor.Open(Name, 0); err != nil {
		return nil, err
	}
	if err := t.connect(); err != nil {
		return nil, errors.Join(err, t.others.Close())
	}
	return t, nil
}

func newTable(conf Config, name string) *Table {
	return &Table{conf: conf, table: &nftables.Table{Name: name, Family: nftables.TableFamilyINet}}
}

// Close leaves the table to the next process.
func (t *Table) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return errors.Join(t.others.Close(), t.conn.CloseLasting())
}

// Remove takes the whole table away, and says whether there was one.
func (t *Table) Remove() (removed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, exists, err := t.lookup()
	if err != nil || !exists {
		return false, err
	}
	if err := t.send((*batch).delTable, 0); errors.Is(err, unix.EPERM) {
		return false, fmt.Errorf("remove table inet %s: another process owns it, does a daemon run on this node? %w", Name, err)
	} else if err != nil {
		return false, err
	}
	return true, nil
}

// Forget has the next Set read the kernel again.
func (t *Table) Forget() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.mirror = nil
}

func (t *Table) connect() error {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(func(c *netlink.Conn) error {
		t.sock = c
		// A batch is one message to the kernel and must fit as a whole.
		return errors.Join(c.SetWriteBuffer(bufferSize), c.SetReadBuffer(bufferSize))
	}))
	if err != nil {
		return fmt.Errorf("open nftables socket (is nf_tables missing from the kernel?): %w", err)
	}
	t.conn = conn
	if t.others == nil {
		return nil // a probe, which nobody watches
	}
	if err := t.others.Own(t.sock); err != nil {
		return errors.Join(err, conn.CloseLasting())
	}
	return nil
}

// bufferSize holds the largest batch and its acknowledgements.
const bufferSize = 4 << 20

// reconnect starts over after an error: answers to the failed batch may
// still sit in the socket and would be taken for those to the next one. The
// table stays and is adopted again.
func (t *Table) reconnect() error {
	t.mirror = nil
	_ = t.conn.CloseLasting()
	return t.connect()
}

// ensure makes the table exist and be ours, in a transaction of its own.
func (t *Table) ensure() error {
	flags, exists, err := t.lookup()
	if err != nil {
		return err
	}
	owned := flags&(flagOwner|flagPersist) != 0 // now, or before its owner died
	switch {
	case exists && t.mirror != nil:
		return nil
	case t.conf.Plain && owned:
		return fmt.Errorf("use table inet %s: an earlier process owned it, remove it with: nft delete table inet %s", Name, Name)
	case t.conf.Plain:
		t.others.Unprotected()
		return t.send((*batch).addTable, 0)
	case exists && !owned:
		if unsupported(t.probe()) {
			t.others.Unprotected()
			return nil // all tables of this kernel are plain
		}
		// A plain table cannot become an owned one.
		if err := t.send((*batch).delTable, 0); err != nil {
			return err
		}
	}
	err = t.send((*batch).addTable, flagOwner|flagPersist)
	switch {
	case unsupported(err) && !exists:
		t.conf.Log.Info("kernel knows no owned nftables tables, others may change ours", "table", Name)
		t.others.Unprotected()
		return t.send((*batch).addTable, 0)
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("adopt table inet %s: another process owns it, is a second daemon running on this node? %w", Name, err)
	}
	return err
}

// probe asks for an owned table that goes with the socket: the kernel is
// asked what it can do, its version says little.
func (t *Table) probe() error {
	probe := newTable(t.conf, Name+"-probe")
	if err := probe.connect(); err != nil {
		return err
	}
	defer func() { _ = probe.conn.CloseLasting() }()
	if err := probe.send((*batch).addTable, flagOwner|flagPersist); err != nil {
		return err
	}
	return probe.send((*batch).delTable, 0)
}

func unsupported(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

// lookup reads the table's flags.
func (t *Table) lookup() (flags uint32, exists bool, err error) {
	list, err := t.conn.ListTablesOfFamily(nftables.TableFamilyINet)
	if err != nil {
		return 0, false, errors.Join(fmt.Errorf("list nftables tables: %w", err), t.reconnect())
	}
	for _, found := range list {
		if found.Name == t.table.Name {
			// The library reads this big-endian field in host order.
			return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, found.Flags)), true, nil
		}
	}
	return 0, false, nil
}

// send makes or removes the table.
func (t *Table) send(write func(*batch, uint32), flags uint32) error {
	b := t.batch()
	write(b, flags)
	if err := b.commit(); err != nil {
		return errors.Join(fmt.Errorf("write table inet %s: %w", t.table.Name, err), t.reconnect())
	}
	t.mirror = nil
	return nil
}
