// Package poplin is the CNI main plugin: it gives a pod one interface, joined
// to the host by a veth pair and routes. Inputs are the calls of a container
// runtime; output is the kernel's state and a result on stdout. It needs no
// daemon unless the configuration names one that enforces policies, and it
// refuses to leave anything behind of an ADD that failed.
package poplin

import (
	"errors"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"

	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/isolation"
	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/conf"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// codeExists is our own error code (the specification leaves 100 and up to
// plugins): the attachment is there already. It is in docs/cni.md.
const codeExists = 100

// IPAM is where addresses come from: the commands of the CNI specification's
// section 4, served in process or by another plugin.
type IPAM struct {
	Add                    func(call.Call) (*types100.Result, error)
	Del, Check, Status, GC func(call.Call) error
}

// Plugin is the plugin with its IPAM.
type Plugin struct {
	// HostLocal serves ipam.type host-local.
	HostLocal IPAM
}

// Run answers a call. What it prints is on stdout.
func (p Plugin) Run(c call.Call) error {
	switch c.Command {
	case "ADD":
		return p.add(c)
	case "DEL":
		return p.del(c)
	case "CHECK":
		return p.check(c)
	case "STATUS":
		return p.status(c)
	case "GC":
		return p.gc(c)
	}
	return version.PluginSupports(call.Versions...).Encode(os.Stdout)
}

func (p Plugin) ipam(kind string) IPAM {
	if kind == conf.HostLocal {
		return p.HostLocal
	}
	return delegate(kind)
}

// add works in one order, and undoes in the reverse: address, links, result.
func (p Plugin) add(args call.Call) (err error) {
	watch := startWatch()
	c, err := conf.Parse(args.Stdin, args.Args)
	if err != nil {
		return invalid(err)
	}
	previous, err := conf.PrevResult(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	// Asked before IPAM, because to undo a reservation means to release all
	// that this container's interface has: of the first ADD as well.
	site, err := apply.Open(plan.HostName(args.ContainerID, args.IfName), args.Netns)
	if err != nil {
		return explain(err)
	}
	defer site.Close()
	ipam := p.ipam(c.IPAM)
	lease, err := ipam.Add(args)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = also(err, ipam.Del(args))
		}
	}()
	watch.lap("address")
	attachment, err := makePlan(c, args, lease)
	if err != nil {
		return invalid(err)
	}
	granted, err := wishesOf(c, args, attachment)
	if err != nil {
		return invalid(err)
	}
	// The daemon works while the links are made.
	asked := ask(c, args, attachment)
	defer asked.Close()
	if err := site.Add(attachment, watch.around("links", "policies", asked.Wait)); err != nil {
		return explain(err)
	}
	defer func() {
		if err != nil {
			err = also(err, detach(c.StateDir, attachment.Host.Name))
		}
	}()
	watch.lap("links")
	if err := granted.add(); err != nil {
		return err
	}
	watch.lap("requests")
	if err := write(after(previous, result(c, attachment, args, lease)), c.CNIVersion); err != nil {
		return types.NewError(types.ErrIOFailure, "cannot print the result", err.Error())
	}
	watch.lap("result")
	watch.tell(c.ReadyFile)
	return nil
}

// del removes the link first: an address that is free must lead nowhere.
func (p Plugin) del(args call.Call) error {
	kind, err := conf.IPAMType(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	stateDir, err := conf.StateDir(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	if err := detach(stateDir, plan.HostName(args.ContainerID, args.IfName)); err != nil {
		return err
	}
	return p.ipam(kind).Del(args)
}

// detach removes a link and what it was granted.
func detach(stateDir, link string) error {
	if err := apply.Del(link); err != nil {
		return explain(err)
	}
	return withdraw(stateDir, link)
}

func (p Plugin) check(args call.Call) error {
	c, err := conf.Parse(args.Stdin, args.Args)
	if err != nil {
		return invalid(err)
	}
	previous, err := conf.PrevResult(args.Stdin)
	if err == nil && previous == nil {
		err = errors.New("prevResult: missing; CHECK compares the pod with the result of its ADD")
	}
	if err != nil {
		return invalid(err)
	}
	if err := p.ipam(c.IPAM).Check(args); err != nil {
		return err
	}
	attachment, err := replan(c, args, previous)
	if err != nil {
		return invalid(err)
	}
	granted, err := wishesOf(c, args, attachment)
	if err != nil {
		return invalid(err)
	}
	if err := errors.Join(apply.Check(attachment, args.Netns), granted.check()); err != nil {
		if e := new(apply.NamespaceError); errors.As(err, &e) {
			return explain(err)
		}
		return types.NewError(types.ErrInternal, "pod's network is not as ADD left it",
			fmt.Sprintf("%v; delete the pod, so that it is made again", err))
	}
	return nil
}

// gc removes what no attachment has that the runtime knows. Links go first,
// as in del; an address whose link could not be removed stays reserved.
func (p Plugin) gc(args call.Call) error {
	kind, err := conf.IPAMType(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	valid, err := args.Valid()
	if err != nil {
		return err
	}
	keep := map[string]bool{}
	for _, a := range valid {
		keep[plan.HostName(a.ContainerID, a.IfName)] = true
	}
	stateDir, err := conf.StateDir(args.Stdin)
	if err != nil {
		return invalid(err)
	}
	links := errors.Join(apply.Collect(args.Network, keep), sweep(stateDir))
	err = p.ipam(kind).GC(args)
	if links != nil {
		return also(explain(links), err)
	}
	return err
}

func invalid(err error) error {
	if e := new(conf.ArgsError); errors.As(err, &e) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid CNI_ARGS", err.Error())
	}
	return types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration", err.Error())
}

// explain gives an error of the kernel's state its code.
func explain(err error) error {
	if e := new(apply.NamespaceError); errors.As(err, &e) {
		return types.NewError(types.ErrInvalidEnvironmentVariables, "invalid CNI_NETNS",
			fmt.Sprintf("CNI_NETNS: %v; give the path of the pod's network namespace", e))
	}
	if e := new(isolation.Refused); errors.As(err, &e) {
		return types.NewError(types.ErrTryAgainLater, "policies do not hold for the pod yet", err.Error())
	}
	if errors.Is(err, apply.ErrExists) {
		return types.NewError(codeExists, "interface exists already",
			fmt.Sprintf("%v; it is left as it is: ADD may not be repeated without DEL", err))
	}
	return types.NewError(types.ErrInternal, "cannot change the pod's network", err.Error())
}

// also adds what went wrong after it.
func also(err, next error) error {
	if next == nil {
		return err
	}
	e := new(types.Error)
	if !errors.As(err, &e) {
		return errors.Join(err, next)
	}
	return types.NewError(e.Code, e.Msg, fmt.Sprintf("%s; and then: %v", e.Details, next))
}
