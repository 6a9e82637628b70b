// Command floor is the least a CNI plugin in Go can do: one process that
// makes the same veth pair, addresses and routes by netlink. It reads no
// configuration, keeps no address and returns hardly a result. Inputs are
// the environment of a CNI call and FLOOR_ADDR in CNI_ARGS; output is the
// address as a result. The benchmark measures the real plugin against it.
//
// As in cmd/poplin.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"fmt"
	"net/netip"
	"os"
	"strings"

	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/plan"
)

func main() {
	if err := run(); err != nil {
		fmt.Printf(`{"cniVersion":"1.0.0","code":999,"msg":%q}`, err)
		os.Exit(1)
	}
}

func run() error {
	id, ifName, netns := os.Getenv("CNI_CONTAINERID"), os.Getenv("CNI_IFNAME"), os.Getenv("CNI_NETNS")
	if os.Getenv("CNI_COMMAND") == "DEL" {
		return apply.Del(plan.HostName(id, ifName))
	}
	_, text, _ := strings.Cut(os.Getenv("CNI_ARGS"), "FLOOR_ADDR=")
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return err
	}
	p, err := plan.New(plan.Request{ContainerID: id, IfName: ifName, MTU: 1500, Addrs: []netip.Addr{addr}})
	if err != nil {
		return err
	}
	site, err := apply.Open(p.Host.Name, netns)
	if err != nil {
		return err
	}
	if err := site.Add(p, func() error { return nil }); err != nil {
		return err
	}
	_, err = fmt.Printf(`{"cniVersion":"1.0.0","ips":[{"address":"%s/32"}]}`, addr)
	return err
}
