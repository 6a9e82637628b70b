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

// Plugin is the IPAM.
type Plugin struct {
	Kernel store.Kernel
	// Clock is the machine's if nil.
	Clock func() (store.Moment, error)
	// Warn tells of files that are not as they should be.
	Warn func(string)
}

// Add reserves one address of each range set. The reservation counts as being
// made until this process ends.
func (p Plugin) Add(args call.Call) (*types100.Result, error) {
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
	addrs, _, err := p.open(c.dir).Reserve(owner(args), c.picks())
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
func (p Plugin) Del(args call.Call) error {
	l, err := parseLease(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	if err := p.open(l.dir).Release(owner(args), l.addrs, l.wanted); err != nil {
		return failure("cannot release addresses", err)
	}
	return nil
}

// Check asks whether this container's interface still holds the addresses
// that the previous result gave it.
func (p Plugin) Check(args call.Call) error {
	l, err := parseLease(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	held, dir := 0, p.open(l.dir)
	for _, a := range l.addrs {
		if dir.Holds(owner(args), a) {
			held++
		}
	}
	if held < max(l.wanted, 1) {
		return types.NewError(types.ErrInternal, "address is not reserved",
			fmt.Sprintf("container %s has %v, of which %s reserves %d only: another pod may get the rest; delete this pod", args.ContainerID, l.addrs, l.dir, held))
	}
	return nil
}

// GC releases what no attachment holds that the runtime knows.
func (p Plugin) GC(args call.Call) error {
	l, err := parseLease(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	valid, err := args.Valid()
	if err != nil {
		return err
	}
	keep := make([]store.Owner, len(valid))
	for i, a := range valid {
		keep[i] = store.Owner(a)
	}
	if err := p.open(l.dir).Collect(keep); err != nil {
		return failure("cannot release addresses", err)
	}
	return nil
}

// Status says whether Add could serve a pod.
func (p Plugin) Status(args call.Call) error {
	c, err := parse(args.Stdin, args.Args)
	if err != nil {
		return invalid(err)
	}
	if err := p.open(c.dir).Free(c.picks()); err != nil {
		return c.explain(err)
	}
	return nil
}

func (p Plugin) open(d directory) *store.Store {
	s := &store.Store{Dir: d.reservations(), State: d.state(), Kernel: p.Kernel, Clock: p.Clock, Warn: p.Warn}
	if s.Clock == nil {
		s.Clock = store.Now
	}
	return s
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
	}
	return failure("cannot reserve an address", err)
}

// failure is an error of the filesystem.
func failure(what string, err error) error {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return types.NewError(types.ErrTryAgainLater, what, fmt.Sprintf("%v; free some disk space", err))
	case errors.Is(err, syscall.EROFS):
		return types.NewError(types.ErrTryAgainLater, what, fmt.Sprintf("%v; make the filesystem writable", err))
	}
	return types.NewError(types.ErrIOFailure, what, err.Error())
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
