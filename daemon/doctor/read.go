package doctor

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"poplin.dev/poplin/daemon/conflist"
	"poplin.dev/poplin/daemon/ipam"
	"poplin.dev/poplin/daemon/status"
	"poplin.dev/poplin/pkg/apply/foreign"
	"poplin.dev/poplin/pkg/apply/nft"
	"poplin.dev/poplin/pkg/apply/probe"
	"poplin.dev/poplin/pkg/apply/sysctl"
	"poplin.dev/poplin/pkg/masquerade"
	"poplin.dev/poplin/pkg/overlay"
)

// Places say where things of the node are.
type Places struct {
	// Socket is the daemon's, ConfDir where the runtime reads network
	// configurations, CNICache where it keeps its attachments.
	Socket, ConfDir, CNICache string
}

const (
	// patience is with a daemon that hangs.
	patience = 2 * time.Second
	// comeAndGo is how long what comes and goes may look like a problem.
	comeAndGo = time.Second
)

// Run examines the node whose files and network the caller sees.
func Run(ctx context.Context, node string, p Places) Report {
	return Report{Node: node, Taken: time.Now().UTC(), Checks: Judge(read(ctx, p))}
}

func read(ctx context.Context, p Places) Facts {
	f := Facts{Features: map[string]error{}, Sysctls: map[string]int{}, Links: map[string]int{}}
	for _, kind := range []string{"veth", "vxlan"} {
		f.Features[kind] = probe.Device(kind)
	}
	f.rules()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if r, err := status.Read(ctx, p.Socket); err != nil {
		f.DaemonErr = err
	} else {
		f.Daemon = &r
	}
	for _, key := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding", "netfilter/nf_conntrack_count", "netfilter/nf_conntrack_max"} {
		if n, known := (sysctl.Tree{}).Number(key); known {
			f.Sysctls[key] = n
		}
	}
	links, _ := net.Interfaces() // without them, what rests on them is not said
	for _, l := range links {
		f.Links[l.Name] = l.MTU
	}
	f.Blocking, f.BlockingErr = foreign.Firewall{}.Blocking()
	f.Conflists, f.ConflistsErr = configurations(p.ConfDir)
	f.addresses(p)
	return f
}

// rules has the kernel take those that every node has.
func (f *Facts) rules() {
	own := []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24"), netip.MustParsePrefix("2001:db8::/64")}
	me := overlay.Self{Port: 8472, PodCIDRs: own}
	me.Underlay.Addr = netip.MustParseAddr("192.0.2.1")
	owned, err := nft.Try(overlay.Guards(me, nil))
	f.Owned, f.Features["nftables, reverse path, untracked packets"] = owned, err
	_, f.Features["masquerade"] = nft.Try(masquerade.Compile(own, nil, me.Port))
}

// configurations are the files that a runtime reads, in its order.
func configurations(dir string) (list []string, err error) {
	entries, err := os.ReadDir(dir) // sorted
	if err != nil {
		return nil, fmt.Errorf("look for network configurations: %w", err)
	}
	for _, e := range entries {
		if slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			list = append(list, e.Name())
		}
	}
	return list, nil
}

func (f *Facts) addresses(p Places) {
	if f.Daemon != nil && f.Daemon.Conflist == "" {
		return // none is given yet
	}
	r, err := ipam.Check(filepath.Join(p.ConfDir, conflist.File), p.CNICache, comeAndGo)
	f.AddressesErr = err
	for _, problem := range r.Problems {
		f.Addresses = append(f.Addresses, [2]string{problem.Kind + ": " + problem.What, problem.Remedy})
	}
}
