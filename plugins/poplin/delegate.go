package poplin

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"

	"poplin.dev/poplin/plugins/call"
)

// delegate is an IPAM plugin of its own, as section 4 of the specification
// has it. An ADD of it that fails is followed by its DEL.
//
// The CNI library's package invoke does the same, but links net/http and TLS
// since 1.3.1, which every pod would pay for.
func delegate(kind string) IPAM {
	d := delegation{kind}
	return IPAM{
		Add: func(args call.Call) (*types100.Result, error) {
			result, err := d.add(args)
			if err != nil {
				return nil, also(err, d.call("DEL", args))
			}
			return result, nil
		},
		Del:    func(args call.Call) error { return d.call("DEL", args) },
		Check:  func(args call.Call) error { return d.call("CHECK", args) },
		Status: func(args call.Call) error { return d.call("STATUS", args) },
		GC:     func(args call.Call) error { return d.call("GC", args) },
	}
}

type delegation struct{ kind string }

func (d delegation) add(args call.Call) (*types100.Result, error) {
	out, err := d.run("ADD", args)
	if err != nil {
		return nil, err
	}
	raw, err := create.CreateFromBytes(out)
	if err != nil {
		return nil, d.decoding(err)
	}
	result, err := types100.NewResultFromResult(raw)
	if err != nil {
		return nil, d.decoding(err)
	}
	return result, nil
}

func (d delegation) call(command string, args call.Call) error {
	_, err := d.run(command, args)
	return err
}

// run executes the plugin with this call's environment and stdin. Its stderr
// is ours: the runtime logs it.
func (d delegation) run(command string, args call.Call) ([]byte, error) {
	path, err := d.find(args.Path)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	cmd := exec.Command(path)
	cmd.Env = append(os.Environ(), "CNI_COMMAND="+command)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(args.Stdin), &out, os.Stderr
	err = cmd.Run()
	if err == nil {
		return out.Bytes(), nil
	}
	e := new(types.Error)
	if exit := new(exec.ExitError); !errors.As(err, &exit) || json.Unmarshal(out.Bytes(), e) != nil {
		return nil, types.NewError(types.ErrInternal, fmt.Sprintf("IPAM plugin %s failed", d.kind), err.Error())
	}
	return nil, e
}

// find looks for the plugin in CNI_PATH.
func (d delegation) find(cniPath string) (string, error) {
	for _, dir := range filepath.SplitList(cniPath) {
		path := filepath.Join(dir, d.kind)
		if info, err := os.Stat(path); dir != "" && err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", types.NewError(types.ErrInvalidNetworkConfig, "invalid network configuration",
		fmt.Sprintf("ipam.type: no plugin %q in CNI_PATH %q; install it there, or use host-local, which needs none", d.kind, cniPath))
}

func (d delegation) decoding(err error) error {
	return types.NewError(types.ErrDecodingFailure, fmt.Sprintf("cannot read the result of IPAM plugin %s", d.kind), err.Error())
}
