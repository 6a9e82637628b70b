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
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/pkg/version"
	"poplin.dev/poplin/plugins/call"
	"poplin.dev/poplin/plugins/hostlocal"
	"poplin.dev/poplin/plugins/poplin"
	"poplin.dev/poplin/plugins/poplin/apply"
)

func main() {
	about := "poplin " + version.String()
	if len(os.Args) == 2 && (os.Args[1] == "--version" || os.Args[1] == "-version") {
		fmt.Println(about)
		return
	}
	if os.Getenv("CNI_COMMAND") == "" {
		fmt.Fprintf(os.Stderr, "CNI plugin %s, CNI versions %s\n", about, strings.Join(call.Versions, ", "))
	}
	c, err := call.Read(os.Getenv, os.Stdin)
	if err == nil {
		ipam := hostlocal.Plugin{Kernel: apply.Kernel{}, Warn: warn}
		err = poplin.Plugin{HostLocal: poplin.IPAM{
			Add: ipam.Add, Del: ipam.Del, Check: ipam.Check, Status: ipam.Status, GC: ipam.GC,
		}}.Run(c)
	}
	if err != nil {
		fail(cmp.Or(c.CNIVersion, "1.0.0"), err)
	}
}

// warn writes to stderr, which the runtime logs.
func warn(text string) { fmt.Fprintln(os.Stderr, "poplin:", text) }

// fail prints an error as section 5 of the specification says.
func fail(version string, err error) {
	e := new(types.Error)
	if !errors.As(err, &e) {
		e = types.NewError(types.ErrInternal, "internal error", err.Error())
	}
	_ = json.NewEncoder(os.Stdout).Encode(struct {
		CNIVersion string `json:"cniVersion"`
		Code       uint   `json:"code"`
		Msg        string `json:"msg"`
		Details    string `json:"details"`
	}{version, e.Code, e.Msg, e.Details})
	os.Exit(1)
}
