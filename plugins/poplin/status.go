package poplin

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/poplin/conf"
)

// The specification's codes for STATUS; the library has only the first.
const (
	codeUnavailable = types.ErrPluginNotAvailable
	// codeLimited says in addition that running pods may lack connectivity.
	codeLimited = types.ErrLimitedConnectivity
)

// status says whether an ADD could be served. Whatever ADD would fail for is
// a reason, so that no pod is started into it.
func (p Plugin) status(args call.Call) error {
	c, err := conf.Parse(args.Stdin, args.Args)
	if err != nil {
		return unavailable(invalid(err))
	}
	if err := p.ipam(c.IPAM).Status(args); err != nil {
		return unavailable(err)
	}
	if c.ReadyFile == "" {
		return nil
	}
	if why := notReady(c.ReadyFile); why != "" {
		return types.NewError(codeLimited, "node's network is not ready", why)
	}
	return nil
}

// notReady reads why pods may not start; the file is empty while they may.
func notReady(file string) string {
	text, err := os.ReadFile(file)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Sprintf("there is no %s: poplind has not been ready since this node started; look at its log", file)
	case err != nil:
		return fmt.Sprintf("readyFile: %v", err)
	}
	return strings.TrimSpace(string(text))
}

// unavailable gives an error STATUS's code. What another plugin says with one
// of them stands.
func unavailable(err error) error {
	e := new(types.Error)
	switch {
	case !errors.As(err, &e):
		return types.NewError(codeUnavailable, "pods cannot be attached", err.Error())
	case e.Code == codeUnavailable || e.Code == codeLimited:
		return e
	}
	return types.NewError(codeUnavailable, e.Msg, e.Details)
}
