// Command poplin is the CNI plugin that a container runtime runs for each
// pod (see docs/cni.md). Inputs are the environment and stdin of a CNI call;
// output is its result or error on stdout. It refuses to be run by hand for
// anything but --version.
//
// A process of milliseconds need not know its CPU quota, for which the runtime
// would read every mount of the host at start.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"os"

	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/pkg/version"
	"poplin.dev/poplin/plugins/hostlocal"
	"poplin.dev/poplin/plugins/poplin"
)

func main() {
	about := "poplin " + version.String()
	if len(os.Args) == 2 && (os.Args[1] == "--version" || os.Args[1] == "-version") {
		fmt.Println(about)
		return
	}
	plugin := poplin.Plugin{HostLocal: poplin.IPAM{
		Add: hostlocal.Add, Del: hostlocal.Del, Check: hostlocal.Check, Status: hostlocal.Status,
	}}
	if err := plugin.Run("CNI plugin " + about); err != nil {
		fail(err)
	}
}

// advice goes with errors of the CNI library, which explain themselves in one
// line.
var advice = map[uint]string{
	types.ErrInvalidEnvironmentVariables: "the container runtime sets CNI_COMMAND, CNI_CONTAINERID, CNI_NETNS, CNI_IFNAME and CNI_PATH; see https://www.cni.dev/docs/spec/",
	types.ErrDecodingFailure:             "stdin holds a network configuration as JSON; see docs/cni.md",
	types.ErrInvalidNetworkConfig:        "see docs/cni.md for what a network configuration needs",
}

// fail prints an error as section 5 of the specification says.
func fail(err *types.Error) {
	_ = json.NewEncoder(os.Stdout).Encode(struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details"`
	}{"1.0.0", err.Code, err.Msg, cmp.Or(err.Details, advice[err.Code])})
	os.Exit(1)
}
