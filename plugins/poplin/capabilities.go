package poplin

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/plugins/bandwidth"
	limit "poplin.dev/poplin/plugins/bandwidth/apply"
	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/hostport"
	ports "poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/plugins/hostport/store"
	"poplin.dev/poplin/plugins/poplin/conf"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// wishes is what a runtime asks for a pod beside its interface.
type wishes struct {
	dir    string
	entry  store.Entry
	limits bandwidth.Limits
}

// hostPortDir is where host ports are saved.
func hostPortDir(stateDir string) string { return filepath.Join(stateDir, "hostports") }

// wishesOf reads them for the attachment p.
func wishesOf(c conf.Conf, args call.Call, p plan.Plan) (w wishes, err error) {
	w.dir = hostPortDir(c.StateDir)
	w.entry = store.Entry{Link: p.Host.Name, ContainerID: args.ContainerID, IfName: args.IfName}
	if c.Pod.Name != "" {
		w.entry.Pod = c.Pod.Namespace + "/" + c.Pod.Name
	}
	mappings, err := ports.Parse(c.PortMappings)
	if err != nil {
		return w, err
	}
	var addrs []netip.Addr
	for _, a := range p.Addresses {
		addrs = append(addrs, a.Addr)
	}
	if w.entry.Elements, err = ports.Elements(mappings, addrs); err != nil {
		return w, err
	}
	w.limits, err = bandwidth.Parse(c.Bandwidth)
	return w, err
}

// add grants them to a link that exists. What fails is undone by the caller,
// with the link.
func (w wishes) add() error {
	if err := limit.Add(w.entry.Link, w.limits); err != nil {
		return types.NewError(types.ErrInternal, "cannot limit the pod's bandwidth", err.Error())
	}
	err := hostport.Add(w.dir, w.entry)
	conflict, save := new(hostport.ConflictError), new(hostport.SaveError)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &conflict):
		return types.NewError(types.ErrTryAgainLater, "host port in use",
			fmt.Sprintf("%v; delete that pod, or give this one another hostPort or hostIP", err))
	case errors.As(err, &save):
		return types.NewError(types.ErrTryAgainLater, "cannot save host ports", err.Error())
	}
	return types.NewError(types.ErrInternal, "cannot serve host ports", err.Error())
}

// withdraw ends what a link was granted, after the link itself. It needs no
// more than the link's name, so that it works whatever the configuration has
// become.
func withdraw(stateDir, link string) error {
	if err := errors.Join(hostport.Del(hostPortDir(stateDir), link), limit.Del(link)); err != nil {
		return types.NewError(types.ErrInternal, "cannot end host ports or limits", err.Error())
	}
	return nil
}

// sweep ends what links were granted that are gone.
func sweep(stateDir string) error {
	if err := errors.Join(hostport.Sweep(hostPortDir(stateDir)), limit.Sync()); err != nil {
		return types.NewError(types.ErrInternal, "cannot end host ports or limits", err.Error())
	}
	return nil
}

func (w wishes) check() error {
	return errors.Join(hostport.Check(w.dir, w.entry), limit.Check(w.entry.Link, w.limits))
}
