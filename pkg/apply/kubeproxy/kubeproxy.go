// Package kubeproxy removes what a kube-proxy that has gone left in the
// kernel. Input is the network namespace of the calling thread; outputs are
// the names of what was removed: the tables of nftables mode, the chains of
// iptables mode as iptables-nft keeps them with the rules that lead there,
// and the device of ipvs mode, without whose addresses ipvs sees no packets.
// It refuses chains that are the kubelet's, and sees nothing of
// iptables-legacy, which only its own program can change.
package kubeproxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	table  = "kube-proxy"
	device = "kube-ipvs0"
)

// kubelets are chains with kube-proxy's prefix that belong to the kubelet.
var kubelets = []string{"KUBE-FIREWALL", "KUBE-KUBELET-CANARY", "KUBE-IPTABLES-HINT", "KUBE-MARK-DROP"}

// theirs tells kube-proxy's chains.
func theirs(chain string) bool {
	return strings.HasPrefix(chain, "KUBE-") && !slices.Contains(kubelets, chain)
}

// Remove takes it all away, each table in one transaction.
func Remove() (removed []string, err error) {
	conn, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("open nftables socket: %w", err)
	}
	all, err := conn.ListTables()
	if err != nil {
		return nil, fmt.Errorf("list nftables tables: %w", err)
	}
	var errs []error
	for _, t := range all {
		if t.Family != nftables.TableFamilyIPv4 && t.Family != nftables.TableFamilyIPv6 {
			continue
		}
		name := map[nftables.TableFamily]string{nftables.TableFamilyIPv4: "ip ", nftables.TableFamilyIPv6: "ip6 "}[t.Family] + t.Name
		var did string
		if t.Name == table {
			conn.DelTable(t)
			did = "table " + name
		} else if n, err := chains(conn, t); err != nil {
			errs = append(errs, fmt.Errorf("find kube-proxy's chains in table %s: %w", name, err))
			continue
		} else if n > 0 {
			did = fmt.Sprintf("%d chains KUBE-* of table %s", n, name)
		}
		switch err := conn.Flush(); {
		case err != nil:
			errs = append(errs, fmt.Errorf("remove %s: %w", did, err))
		case did != "":
			removed = append(removed, did)
		}
	}
	switch link, err := netlink.LinkByName(device); {
	case errors.As(err, new(netlink.LinkNotFoundError)):
	case err == nil:
		if err := netlink.LinkDel(link); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("remove device %s: %w", device, err))
		} else {
			removed = append(removed, "device "+device)
		}
	default:
		errs = append(errs, fmt.Errorf("find device %s: %w", device, err))
	}
	return removed, errors.Join(errs...)
}

// chains has kube-proxy's chains of one table removed by the next flush of
// conn, and before them the rules of others that lead there.
func chains(conn *nftables.Conn, t *nftables.Table) (int, error) {
	all, err := conn.ListChainsOfTableFamily(t.Family)
	if err != nil {
		return 0, err
	}
	all = slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != t.Name })
	var gone []*nftables.Chain
	for _, c := range all {
		if theirs(c.Name) {
			gone = append(gone, c)
		}
	}
	if len(gone) == 0 {
		return 0, nil
	}
	for _, c := range all {
		if theirs(c.Name) {
			continue
		}
		rules, err := conn.GetRules(t, c)
		if err != nil {
			return 0, err
		}
		for _, r := range rules {
			if slices.ContainsFunc(r.Exprs, leads) {
				if err := conn.DelRule(r); err != nil {
					return 0, err
				}
			}
		}
	}
	for _, c := range gone {
		conn.FlushChain(c)
	}
	for _, c := range gone {
		conn.DelChain(c)
	}
	return len(gone), nil
}

// leads says that an expression jumps into kube-proxy's chains.
func leads(e expr.Any) bool {
	v, ok := e.(*expr.Verdict)
	return ok && theirs(v.Chain)
}
