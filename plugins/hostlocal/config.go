package hostlocal

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"poplin.dev/poplin/plugins/hostlocal/allocator"
	"poplin.dev/poplin/plugins/strict"
)

// defaultDataDir is upstream's.
const defaultDataDir = "/var/lib/cni/networks"

// config is what a network configuration says to its IPAM.
type config struct {
	dir        directory
	sets       []allocator.Set
	requested  []netip.Addr
	routes     []*types.Route
	resolvConf string
}

// parse reads the configuration on a plugin's stdin and the CNI_ARGS of the
// call. Of the outer object it looks only at the keys an IPAM reads: the rest
// is the main plugin's.
func parse(stdin []byte, args string) (config, error) {
	var outer struct {
		Name          string          `json:"name"`
		IPAM          json.RawMessage `json:"ipam"`
		RuntimeConfig struct {
			IPs      []string            `json:"ips"`
			IPRanges [][]json.RawMessage `json:"ipRanges"`
		} `json:"runtimeConfig"`
		Args struct {
			CNI struct {
				IPs []string `json:"ips"`
			} `json:"cni"`
		} `json:"args"`
	}
	if err := json.Unmarshal(stdin, &outer); err != nil {
		return config{}, fmt.Errorf("configuration: %w", err)
	}
	c, ranges, err := parseIPAM(outer.IPAM, outer.Name)
	if err != nil {
		return config{}, err
	}
	if err := c.addSets(outer.RuntimeConfig.IPRanges, "runtimeConfig.ipRanges"); err != nil {
		return config{}, err
	}
	if err := c.addSets(ranges, "ipam.ranges"); err != nil {
		return config{}, err
	}
	if err := c.checkSets(); err != nil {
		return config{}, err
	}
	for _, from := range []struct {
		path string
		ips  []string
	}{
		{"CNI_ARGS IP", argIPs(args)},
		{"args.cni.ips", outer.Args.CNI.IPs},
		{"runtimeConfig.ips", outer.RuntimeConfig.IPs},
	} {
		if err := c.request(from.path, from.ips); err != nil {
			return config{}, err
		}
	}
	return c, nil
}

func parseIPAM(raw json.RawMessage, network string) (config, [][]json.RawMessage, error) {
	c := config{}
	var (
		ranges  [][]json.RawMessage
		dataDir string
		one     rangeStrings
	)
	err := strict.Object(raw, "ipam", strict.Fields{
		"type": nil, "dataDir": &dataDir, "ranges": &ranges, "routes": &c.routes, "resolvConf": &c.resolvConf,
		"subnet": &one.subnet, "rangeStart": &one.start, "rangeEnd": &one.end, "gateway": &one.gateway,
	})
	if err != nil {
		return config{}, nil, err
	}
	if c.dir, err = newDirectory(dataDir, network); err != nil {
		return config{}, nil, err
	}
	if err := checkRoutes(c.routes); err != nil {
		return config{}, nil, err
	}
	// The old form, one range beside type, comes before ranges.
	if one != (rangeStrings{}) {
		r, err := one.parse("ipam")
		if err != nil {
			return config{}, nil, err
		}
		c.sets = append(c.sets, allocator.Set{r})
	}
	return c, ranges, nil
}

// checkRoutes refuses what a pod with one link and one gateway cannot have.
func checkRoutes(routes []*types.Route) error {
	for i, r := range routes {
		switch {
		case r == nil || r.Dst.IP == nil:
			return fmt.Errorf("ipam.routes[%d].dst: missing; give a prefix such as 10.0.0.0/8", i)
		case r.GW != nil:
			return fmt.Errorf("ipam.routes[%d].gw: %s cannot be chosen, as a pod has one gateway; remove it", i, r.GW)
		case r.Table != nil || r.Scope != nil:
			return fmt.Errorf("ipam.routes[%d]: table and scope cannot be chosen for a pod's one link; remove them", i)
		}
	}
	return nil
}

// directory is where a network's reservations are.
type directory struct{ data, network string }

func newDirectory(dataDir, network string) (directory, error) {
	if network == "" || strings.HasPrefix(network, ".") || strings.ContainsRune(network, '/') {
		return directory{}, fmt.Errorf("name: %q cannot name a directory", network)
	}
	if dataDir != "" && !filepath.IsAbs(dataDir) {
		return directory{}, fmt.Errorf("ipam.dataDir: %q is relative to nothing; give an absolute path", dataDir)
	}
	return directory{cmp.Or(dataDir, defaultDataDir), network}, nil
}

func (d directory) reservations() string { return filepath.Join(d.data, d.network) }

// state is no network's name: those begin with a letter or digit.
func (d directory) state() string { return filepath.Join(d.data, ".poplin", d.network) }

func (d directory) String() string { return d.reservations() }

// lease is what DEL and CHECK need to know: where to look, what was given,
// and how many addresses that should be (0: unknown).
type lease struct {
	dir    directory
	addrs  []netip.Addr
	wanted int
}

// parseLease is content with less than parse: a configuration that became
// invalid, or ranges that changed, must not keep a pod from being deleted.
func parseLease(stdin []byte) (lease, error) {
	var outer struct {
		CNIVersion string `json:"cniVersion"`
		Name       string `json:"name"`
		IPAM       struct {
			DataDir string            `json:"dataDir"`
			Ranges  []json.RawMessage `json:"ranges"`
			Subnet  string            `json:"subnet"`
		} `json:"ipam"`
		PrevResult    json.RawMessage `json:"prevResult"`
		RuntimeConfig struct {
			IPRanges []json.RawMessage `json:"ipRanges"`
		} `json:"runtimeConfig"`
	}
	if err := json.Unmarshal(stdin, &outer); err != nil {
		return lease{}, fmt.Errorf("configuration: %w", err)
	}
	dir, err := newDirectory(outer.IPAM.DataDir, outer.Name)
	if err != nil {
		return lease{}, err
	}
	l := lease{dir: dir, addrs: resultAddrs(outer.CNIVersion, outer.PrevResult)}
	l.wanted = len(outer.IPAM.Ranges) + len(outer.RuntimeConfig.IPRanges)
	if outer.IPAM.Subnet != "" {
		l.wanted++
	}
	return l, nil
}

// resultAddrs is the addresses of a previous result; one that cannot be read
// has none.
func resultAddrs(version string, prevResult json.RawMessage) (addrs []netip.Addr) {
	if len(prevResult) == 0 {
		return nil
	}
	raw, err := create.Create(version, prevResult)
	if err != nil {
		return nil
	}
	result, err := types100.GetResult(raw)
	if err != nil {
		return nil
	}
	for _, ip := range result.IPs {
		if ip == nil {
			continue
		}
		if a, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, a.Unmap())
		}
	}
	return addrs
}

// rangeStrings is a range as it is written.
type rangeStrings struct{ subnet, start, end, gateway string }

func (s rangeStrings) parse(path string) (allocator.Range, error) {
	subnet, err := netip.ParsePrefix(s.subnet)
	if err != nil {
		return allocator.Range{}, fmt.Errorf("%s.subnet: %q is no prefix such as 10.244.1.0/24", path, s.subnet)
	}
	var addrs [3]netip.Addr
	for i, f := range []struct{ key, value string }{
		{"rangeStart", s.start}, {"rangeEnd", s.end}, {"gateway", s.gateway},
	} {
		if f.value == "" {
			continue
		}
		if addrs[i], err = parseAddr(f.value); err != nil {
			return allocator.Range{}, fmt.Errorf("%s.%s: %w", path, f.key, err)
		}
	}
	r, err := allocator.NewRange(subnet, addrs[0], addrs[1], addrs[2])
	if err != nil {
		return r, fmt.Errorf("%s.%w", path, err)
	}
	return r, nil
}

func (c *config) addSets(raw [][]json.RawMessage, path string) error {
	for i, ranges := range raw {
		var set allocator.Set
		for j, object := range ranges {
			at := fmt.Sprintf("%s[%d][%d]", path, i, j)
			var s rangeStrings
			err := strict.Object(object, at, strict.Fields{
				"subnet": &s.subnet, "rangeStart": &s.start, "rangeEnd": &s.end, "gateway": &s.gateway,
			})
			if err != nil {
				return err
			}
			r, err := s.parse(at)
			if err != nil {
				return err
			}
			set = append(set, r)
		}
		if err := set.Validate(); err != nil {
			return fmt.Errorf("%s[%d]: %w", path, i, err)
		}
		c.sets = append(c.sets, set)
	}
	return nil
}

func (c *config) checkSets() error {
	if len(c.sets) == 0 {
		return fmt.Errorf("ipam.ranges: no range of addresses; give at least one, such as [[{\"subnet\":\"10.244.1.0/24\"}]]")
	}
	for i, s := range c.sets {
		for _, o := range c.sets[:i] {
			if s.Overlaps(o) {
				return fmt.Errorf("ipam.ranges: %v overlaps with %v; each address may stand in one range only", s, o)
			}
		}
	}
	return nil
}

// request notes the addresses somebody wants for this pod. Each must be one
// that a set gives, and a set gives one.
func (c *config) request(path string, ips []string) error {
	for _, s := range ips {
		a, err := parseAddr(s)
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		set := c.setOf(a)
		if set < 0 {
			return fmt.Errorf("%s: %s is none of the addresses that the ranges %v give to pods", path, a, c.sets)
		}
		for _, o := range c.requested {
			if o != a && c.setOf(o) == set {
				return fmt.Errorf("%s: %s and %s are both of range set %d, which gives one address to a pod", path, o, a, set)
			}
		}
		c.requested = append(c.requested, a)
	}
	return nil
}

func (c *config) setOf(a netip.Addr) int {
	for i, s := range c.sets {
		if s.Gives(a) {
			return i
		}
	}
	return -1
}

// parseAddr reads an address, alone or with a prefix length, as upstream
// accepts both. A zone has no place in a file name or in a pod.
func parseAddr(s string) (netip.Addr, error) {
	text, _, _ := strings.Cut(s, "/")
	a, err := netip.ParseAddr(text)
	if err == nil && text != s {
		_, err = netip.ParsePrefix(s)
	}
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is no IP address", s)
	}
	return a.Unmap(), nil
}

// argIPs is the IP of CNI_ARGS ("IP=10.244.1.7;K8S_POD_NAME=web-0;...").
func argIPs(args string) (ips []string) {
	for pair := range strings.SplitSeq(args, ";") {
		if key, value, _ := strings.Cut(pair, "="); key == "IP" && value != "" {
			ips = append(ips, value)
		}
	}
	return ips
}
