// Package hostlocal is the IPAM that keeps a node's addresses in files on
// that node. Inputs are the calls a CNI IPAM plugin gets; outputs are
// reservations and a result. It is upstream's host-local in process: the
// same configuration, directory and lock, so that a node can move over with
// its pods running. It refuses a key it does not know.
package hostlocal

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/hostlocal/store"
)

// codeExists is the main plugin's for an ADD that is repeated.
const codeExists = 100

// Add reserves one address of each range set.
func Add(args call.Call) (*types100.Result, error) {
	c, err := parse(args.Stdin, args.Args)
	if err != nil {
		return nil, invalid(err)
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, Routes: c.routes}
	if c.resolvConf != "" {
		if result.DNS, err = readResolvConf(c.resolvConf); err != nil {
			return nil, types.NewError(types.ErrIOFailure, "cannot read ipam.resolvConf", err.Error())
		}
	}
	addrs, err := c.dir.Reserve(owner(args), c.picks())
	if err != nil {
		return nil, c.explain(err)
	}
	for _, a := range addrs {
		// With the full length, as the pod has it: a subnet's other addresses
		// are not on its link.
		result.IPs = append(result.IPs, &types100.IPConfig{
			Address: net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(a.BitLen(), a.BitLen())},
		})
	}
	return result, nil
}

// Del releases what this container's interface holds. It succeeds when there
// is nothing to release.
func Del(args call.Call) error {
	l, err := parseLease(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	if err := l.dir.Release(owner(args), l.addrs, l.wanted); err != nil {
		return types.NewError(types.ErrIOFailure, "cannot release addresses", err.Error())
	}
	return nil
}

// Check asks whether this container's interface still holds the addresses
// that the previous result gave it.
func Check(args call.Call) error {
	l, err := parseLease(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	held := 0
	for _, a := range l.addrs {
		if l.dir.Holds(owner(args), a) {
			held++
		}
	}
	if held < max(l.wanted, 1) {
		return types.NewError(types.ErrInternal, "address is not reserved",
			fmt.Sprintf("container %s has %v, of which %s reserves %d only: another pod may get the rest; delete this pod", args.ContainerID, l.addrs, l.dir, held))
	}
	return nil
}

// Status says whether Add has a chance.
func Status(args call.Call) error {
	if _, err := parse(args.Stdin, args.Args); err != nil {
		return invalid(err)
	}
	return nil
}

func owner(args call.Call) store.Owner {
	return store.Owner{ContainerID: args.ContainerID, IfName: args.IfName}
}

// picks is, for each set, the requested address or all it gives.
func (c config) picks() []store.Pick {
	picks := make([]store.Pick, len(c.sets))
	for i, s := range c.sets {
		picks[i] = s.After
	}
	for _, a := range c.requested {
		picks[c.setOf(a)] = func(netip.Addr) iter.Seq[netip.Addr] {
			return func(yield func(netip.Addr) bool) { yield(a) }
		}
	}
	return picks
}

func invalid(err error) error {
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid IPAM configuration", err.Error())
}

// explain says what the reader can do. What passes by itself is error 11, so
// that the runtime tries again.
func (c config) explain(err error) error {
	var (
		duplicate *store.DuplicateError
		exhausted *store.ExhaustedError
	)
	switch {
	case errors.As(err, &duplicate):
		return types.NewError(codeExists, "interface has an address already",
			fmt.Sprintf("%v in %s; ADD may not be repeated without DEL", err, c.dir))
	case errors.As(err, &exhausted):
		for _, a := range c.requested {
			if c.setOf(a) == exhausted.Pick {
				return types.NewError(types.ErrTryAgainLater, "requested address is in use",
					fmt.Sprintf("%s is reserved for another pod (see %s/%[1]s); it is free when that pod is gone", a, c.dir))
			}
		}
		return types.NewError(types.ErrTryAgainLater, "no free address",
			fmt.Sprintf("all addresses of %v are reserved in %s; delete pods on this node, or give the node a larger range", c.sets[exhausted.Pick], c.dir))
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return types.NewError(types.ErrTryAgainLater, "cannot reserve an address", fmt.Sprintf("%v; free some disk space", err))
	}
	return types.NewError(types.ErrIOFailure, "cannot reserve an address", err.Error())
}

// readResolvConf reads the resolver(5) settings that a result can carry.
func readResolvConf(name string) (types.DNS, error) {
	var dns types.DNS
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return dns, fmt.Errorf("%w; remove ipam.resolvConf to give pods no resolver from here", err)
	} else if err != nil {
		return dns, err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 2 {
			continue
		}
		switch fields[0] {
		case "nameserver":
			dns.Nameservers = append(dns.Nameservers, fields[1])
		case "domain":
			dns.Domain = fields[1]
		case "search":
			dns.Search = fields[1:] // the last one counts, resolver(5)
		case "options":
			dns.Options = append(dns.Options, fields[1:]...)
		}
	}
	return dns, lines.Err()
}
