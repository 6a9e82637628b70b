package scale

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cni"
)

// readers is what many daemons at once did to the API server.
type readers struct {
	size, n int
	// took is until the last of them knew all, cpu is the API server's by then.
	took, cpu          time.Duration
	memory             float64 // the API server's most, MB
	received           uint64
	requests, watches  float64
	rate, events, rest float64 // bytes and events a second afterwards, of one core of the API server
}

// herdLine is what the program herd says.
type herdLine struct {
	Complete         int
	Took             time.Duration
	Requests, Events int64
}

// herd starts many daemons' readers in one instant.
func (l *lab) herd(ctx context.Context, n int, rest time.Duration) (r readers, err error) {
	r.size, r.n = l.size, n
	if err := cni.Build(l.Dir, "test/bench/scale/herd"); err != nil {
		return r, err
	}
	at, err := cni.NewNode(filepath.Join(l.Dir, "crowd"), l.Dir)
	if err != nil {
		return r, err
	}
	defer at.Close()
	if err := l.Join(at, crowdNumber); err != nil {
		return r, err
	}
	server, err := l.Metrics(ctx)
	if err != nil {
		return r, err
	}
	before, err := l.Server().Usage()
	if err != nil {
		return r, err
	}
	log := filepath.Join(l.Dir, "herd.log")
	run, err := process.Start(at, log, nil, filepath.Join(l.Dir, "herd"), "-n", fmt.Sprint(n), "-kubeconfig", l.PKI(pki.AdminKubeconfig))
	if err != nil {
		return r, err
	}
	defer run.Kill()
	var line herdLine
	if err := api.Poll(ctx, limit, "the readers", func(context.Context) error {
		line, err = lastLine(log)
		if err == nil && line.Complete < n {
			err = fmt.Errorf("%d of %d know all", line.Complete, n)
		}
		return errors.Join(err, run.Alive())
	}); err != nil {
		return r, err
	}
	after, err := l.Server().Usage()
	if err != nil {
		return r, err
	}
	r.took, r.cpu, r.memory, r.requests = line.Took, after.CPU-before.CPU, after.Peak, float64(line.Requests)
	now, err := l.Metrics(ctx)
	if err != nil {
		return r, err
	}
	r.watches = watches(now) - watches(server)
	if r.received, err = received(at); err != nil {
		return r, err
	}
	return r, l.resting(&r, at, log, rest)
}

// resting is what they are told while nothing but churn goes on.
func (l *lab) resting(r *readers, at *cni.Node, log string, rest time.Duration) error {
	time.Sleep(settle)
	type look struct {
		line  herdLine
		bytes uint64
		used  process.Usage
		at    time.Time
	}
	see := func() (k look, err error) {
		k.at = time.Now()
		var errLine, errUsed error
		k.bytes, err = received(at)
		k.line, errLine = lastLine(log)
		k.used, errUsed = l.Server().Usage()
		return k, errors.Join(err, errLine, errUsed)
	}
	before, err := see()
	if err != nil {
		return err
	}
	time.Sleep(rest)
	after, err := see()
	seconds := after.at.Sub(before.at).Seconds()
	r.rate = float64(after.bytes-before.bytes) / seconds
	r.events = float64(after.line.Events-before.line.Events) / seconds
	r.rest = (after.used.CPU - before.used.CPU).Seconds() / seconds
	return err
}

func lastLine(log string) (line herdLine, err error) {
	text, err := os.ReadFile(log)
	if err != nil {
		return line, err
	}
	end := bytes.LastIndexByte(text, '\n')
	if end < 0 {
		return line, errors.New("nothing was said yet")
	}
	err = json.Unmarshal([]byte(api.LastLines(text[:end], 1)), &line)
	return line, err
}
