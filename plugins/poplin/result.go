package poplin

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/conf"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// makePlan joins what the configuration, the call and IPAM say. Of a route
// that an IPAM plugin gives, only what a pod with one link can have counts.
func makePlan(c conf.Conf, args call.Call, lease *types100.Result) (plan.Plan, error) {
	if c.MTU == 0 {
		mtu, err := apply.DefaultMTU()
		if err != nil {
			return plan.Plan{}, err
		}
		c.MTU = mtu
	}
	request := request(c, args)
	lease.IPs = present(lease.IPs)
	for _, ip := range lease.IPs {
		request.Addrs = append(request.Addrs, addrOf(ip.Address.IP))
	}
	for _, r := range present(lease.Routes) {
		request.Routes = append(request.Routes, routeOf(r))
	}
	return plan.New(request)
}

// replan is the plan that led to a previous result.
func replan(c conf.Conf, args call.Call, previous *types100.Result) (plan.Plan, error) {
	inner := slices.IndexFunc(previous.Interfaces, func(i *types100.Interface) bool {
		return i != nil && i.Name == args.IfName && i.Sandbox != ""
	})
	outer := slices.IndexFunc(previous.Interfaces, func(i *types100.Interface) bool {
		return i != nil && i.Name == plan.HostName(args.ContainerID, args.IfName) && i.Sandbox == ""
	})
	if inner < 0 || outer < 0 {
		return plan.Plan{}, fmt.Errorf("prevResult.interfaces: does not have %s of this pod and its host end; it is another plugin's result", args.IfName)
	}
	request := request(c, args)
	for _, ip := range present(previous.IPs) {
		if ip.Interface == nil || *ip.Interface == inner {
			request.Addrs = append(request.Addrs, addrOf(ip.Address.IP))
		}
	}
	for _, r := range present(previous.Routes) {
		// Another plugin of the chain may have added routes elsewhere.
		if plan.IsGateway(addrOf(r.GW)) {
			request.Routes = append(request.Routes, routeOf(r))
		}
	}
	p, err := plan.New(request)
	if err != nil {
		return p, err
	}
	// A later plugin may also have taken a default route away.
	p.Routes = slices.DeleteFunc(p.Routes, func(r plan.Route) bool {
		return !slices.ContainsFunc(request.Routes, func(o plan.Route) bool { return o.Dst == r.Dst })
	})
	if p.Pod, err = linkOf(previous.Interfaces[inner]); err != nil {
		return p, err
	}
	p.Host, err = linkOf(previous.Interfaces[outer])
	return p, err
}

func request(c conf.Conf, args call.Call) plan.Request {
	r := plan.Request{
		Network: args.Network, ContainerID: args.ContainerID, IfName: args.IfName,
		Namespace: c.Pod.Namespace, Name: c.Pod.Name,
		MTU: c.MTU, NodeAddresses: c.NodeAddresses,
	}
	copy(r.MAC[:], c.MAC)
	return r
}

// result says what was made. An address keeps the prefix and gateway that an
// IPAM plugin gave it, which compares them in CHECK, although it is alone on
// its link; routes name the gateway in use.
func result(c conf.Conf, p plan.Plan, args call.Call, lease *types100.Result) *types100.Result {
	r := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: p.Host.Name, Mac: p.Host.MAC.String(), Mtu: p.Host.MTU},
			{Name: p.Pod.Name, Mac: p.Pod.MAC.String(), Mtu: p.Pod.MTU, Sandbox: args.Netns},
		},
		DNS: lease.DNS,
	}
	if !c.DNS.IsEmpty() {
		r.DNS = c.DNS
	}
	for i, a := range p.Addresses {
		ip := &types100.IPConfig{Interface: types100.Int(1), Address: lease.IPs[i].Address, Gateway: lease.IPs[i].Gateway}
		if ip.Gateway == nil {
			ip.Gateway = a.Gateway.AsSlice()
		}
		r.IPs = append(r.IPs, ip)
	}
	for _, route := range p.Routes {
		r.Routes = append(r.Routes, &types.Route{
			Dst: net.IPNet{IP: route.Dst.Addr().AsSlice(), Mask: net.CIDRMask(route.Dst.Bits(), route.Dst.Addr().BitLen())},
			GW:  route.Gateway.AsSlice(),
			MTU: route.MTU, AdvMSS: route.AdvMSS, Priority: route.Priority,
		})
	}
	return r
}

// after is the result of a chain so far, of which r is this plugin's part.
func after(previous, r *types100.Result) *types100.Result {
	if previous == nil {
		return r
	}
	for _, ip := range r.IPs {
		ip.Interface = types100.Int(*ip.Interface + len(previous.Interfaces))
	}
	r.Interfaces = append(previous.Interfaces, r.Interfaces...)
	r.IPs = append(previous.IPs, r.IPs...)
	r.Routes = append(previous.Routes, r.Routes...)
	if r.DNS.IsEmpty() {
		r.DNS = previous.DNS
	}
	return r
}

// write prints a result. For the current form of results it writes what the
// library writes, which takes the way through a map and back.
func write(r *types100.Result, version string) error {
	as, err := r.GetAsVersion(version)
	if err != nil {
		return err
	}
	now, ok := as.(*types100.Result)
	if !ok {
		return as.Print()
	}
	return json.NewEncoder(os.Stdout).Encode(struct {
		CNIVersion string                `json:"cniVersion"`
		Interfaces []*types100.Interface `json:"interfaces"`
		IPs        []*types100.IPConfig  `json:"ips"`
		Routes     []*types.Route        `json:"routes"`
		DNS        types.DNS             `json:"dns,omitzero"`
	}{now.CNIVersion, now.Interfaces, now.IPs, now.Routes, now.DNS})
}

// linkOf is a link as a result has it. One before CNI 1.1 has no MTU, and what
// the configuration says may be changed by later plugins, or by now.
func linkOf(i *types100.Interface) (plan.Link, error) {
	l := plan.Link{Name: i.Name, MTU: i.Mtu}
	if i.Mac == "" {
		return l, nil
	}
	mac, err := net.ParseMAC(i.Mac)
	if err != nil || len(mac) != len(l.MAC) {
		return l, fmt.Errorf("prevResult.interfaces: %q is no 48-bit MAC address", i.Mac)
	}
	l.MAC = plan.MAC(mac)
	return l, nil
}

func routeOf(r *types.Route) plan.Route {
	ones, _ := r.Dst.Mask.Size()
	return plan.Route{
		Dst: netip.PrefixFrom(addrOf(r.Dst.IP), ones),
		MTU: r.MTU, AdvMSS: r.AdvMSS, Priority: r.Priority,
	}
}

// present leaves out what JSON may hold in a list of objects: null.
func present[T any](list []*T) []*T {
	return slices.DeleteFunc(list, func(p *T) bool { return p == nil })
}

// addrOf is the zero Addr for what is no address.
func addrOf(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}
