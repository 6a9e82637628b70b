package poplin

import (
	"net/netip"
	"path/filepath"

	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/isolation"
	"poplin.dev/poplin/plugins/poplin/conf"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// ask asks the node's daemon, if the configuration says so, whether policies
// hold for a pod with these addresses. Policies are about Kubernetes' pods only.
func ask(c conf.Conf, args call.Call, p plan.Plan) *isolation.Asked {
	if c.PolicySocket == "" || c.Pod.Name == "" {
		return nil
	}
	addrs := make([]netip.Addr, len(p.Addresses))
	for i, a := range p.Addresses {
		addrs[i] = a.Addr
	}
	return isolation.Ask(c.PolicySocket, filepath.Join(c.StateDir, isolation.File), isolation.Question{
		Namespace: c.Pod.Namespace, Name: c.Pod.Name, UID: c.Pod.UID, Sandbox: args.ContainerID, Addresses: addrs,
	})
}
