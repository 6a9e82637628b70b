// Package apply puts host ports into the kernel: one nftables table, by
// netlink, and the end of UDP flows that a change has made stale. Inputs are
// all elements of the node; outputs are errors. Set writes the whole table in
// one transaction, so that whatever was there before is right afterwards and
// no packet meets half of it; without elements there is no table. It touches
// no other table, and of the flows only those of host ports.
package apply

import (
	"bytes"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/plugins/wire"
)

// Kernel is that of the network namespace it was opened in.
type Kernel struct{ netfilter *wire.Conn }

// Open connects.
func Open() (*Kernel, error) {
	c, err := wire.Open(unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, err
	}
	return &Kernel{c}, nil
}

// Close disconnects; what was set stays.
func (k *Kernel) Close() { k.netfilter.Close() }

// Set makes elements all that the node's host ports are. They do not
// conflict.
func (k *Kernel) Set(elements []plan.Element) error {
	if len(elements) == 0 {
		b := newBatch()
		b.noTable()
		if err := k.send(b); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove nftables table inet %s: %w", Name, err)
		}
		return nil
	}
	err := k.write(elements, false)
	if err == nil {
		return nil
	}
	// Something of ours is there in another shape, by an older version or by
	// hand, which cannot be changed in place.
	if k.write(elements, true) == nil {
		return nil
	}
	return fmt.Errorf("write nftables table inet %s (does the kernel have nf_tables with nat and fib?): %w", Name, err)
}

func (k *Kernel) write(elements []plan.Element, afresh bool) error {
	b := newBatch()
	b.table()
	if afresh {
		b.noTable()
		b.table()
	}
	content := items(elements)
	for i, s := range sets {
		b.set(s, uint32(i+1))
		b.fill(s.name, content[s.name])
	}
	list := chains()
	for _, c := range list {
		b.chain(c)
		b.rules(c)
	}
	return k.send(b)
}

func (k *Kernel) send(b *batch) error {
	_, err := k.netfilter.Do(b.end()...)
	return err
}

// Check says which of elements, or of the rules that look them up, is missing.
func (k *Kernel) Check(elements []plan.Element) error {
	rules, err := k.netfilter.Do(request(unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP, named("")))
	if err != nil {
		return fmt.Errorf("list rules of nftables table inet %s: %w", Name, err)
	}
	want := 0
	for _, c := range chains() {
		want += len(c.rules)
	}
	if len(rules) != want {
		return fmt.Errorf("nftables table inet %s has %d rules, not %d", Name, len(rules), want)
	}
	var errs []error
	for _, e := range elements {
		for set, list := range items([]plan.Element{e}) {
			for _, i := range list {
				if !k.holds(set, i) {
					errs = append(errs, fmt.Errorf("host port %s does not lead to the pod: it is not in map %s of nftables table inet %s", e, set, Name))
				}
			}
		}
	}
	return errors.Join(errs...)
}

func (k *Kernel) holds(set string, want item) bool {
	ask := elements(set, []item{{key: want.key}})
	answers, err := k.netfilter.Do(request(unix.NFT_MSG_GETSETELEM, unix.NLM_F_ACK, ask))
	if err != nil || len(answers) != 1 || len(answers[0]) < nfgenmsg {
		return false
	}
	have := wire.Find(answers[0][nfgenmsg:], unix.NFTA_SET_ELEM_LIST_ELEMENTS, unix.NFTA_LIST_ELEM, unix.NFTA_SET_ELEM_DATA, unix.NFTA_DATA_VALUE)
	return bytes.Equal(have, want.data)
}

// nfgenmsg is the size of the header that each message of netfilter has.
const nfgenmsg = 4
