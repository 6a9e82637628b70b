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
	"poplin.dev/poplin/test/bench/scale/simulated"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cni"
)

// crowd is what many daemons at once did to the API server.
type crowd struct {
	size, n int
	// took is until the last of them knew all, cpu is the API server's by then.
	took, cpu         time.Duration
	memory            float64 // the API server's most, MB
	received          uint64
	requests, watches float64
	// rate and events are bytes and events a second afterwards, rest the cores
	// that the API server uses then.
	rate, events, rest float64
}

// readerLine is what the program reader says.
type readerLine struct {
	Took             time.Duration
	Requests, Events int64
}

// many are readers that run, each a process with a connection of its own.
type many struct {
	at   *cni.Node
	runs []*process.Process
	logs []string
}

func (m *many) start(l *lab, n int) error {
	for i := range n {
		log := filepath.Join(l.Dir, fmt.Sprintf("reader-%d.log", i))
		run, err := process.Start(m.at, log, nil, filepath.Join(l.Dir, "reader"), "-node", simulated.Node(i).Name(), "-kubeconfig", l.PKI(pki.AdminKubeconfig))
		if err != nil {
			return err
		}
		m.runs, m.logs = append(m.runs, run), append(m.logs, log)
	}
	return nil
}

func (m *many) stop() {
	for _, run := range m.runs {
		run.Kill()
	}
}

// line is the sum of what all say, with the longest time; complete counts those
// that know all.
func (m *many) line() (sum readerLine, complete int, err error) {
	for i, log := range m.logs {
		text, err := os.ReadFile(log)
		if err := errors.Join(err, m.runs[i].Alive()); err != nil {
			return sum, complete, err
		}
		end := bytes.LastIndexByte(text, '\n')
		if end < 0 {
			continue // nothing was said yet
		}
		var one readerLine
		if err := json.Unmarshal([]byte(api.LastLines(text[:end], 1)), &one); err != nil {
			return sum, complete, fmt.Errorf("read %s: %w", log, err)
		}
		sum.Took, sum.Requests, sum.Events = max(sum.Took, one.Took), sum.Requests+one.Requests, sum.Events+one.Events
		if one.Took > 0 {
			complete++
		}
	}
	return sum, complete, nil
}

// readers starts many daemons' readers in one instant.
func (l *lab) readers(ctx context.Context, n int, rest time.Duration) (r crowd, err error) {
	r.size, r.n = l.size, n
	if err := cni.Build(l.Dir, "test/bench/scale/reader"); err != nil {
		return r, err
	}
	m := &many{}
	if m.at, err = cni.NewNode(filepath.Join(l.Dir, "crowd"), l.Dir); err != nil {
		return r, err
	}
	defer m.at.Close()
	if err := l.Join(m.at, crowdNumber); err != nil {
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
	defer m.stop()
	if err := m.start(l, n); err != nil {
		return r, err
	}
	var line readerLine
	if err := api.Poll(ctx, 2*limit, "the readers", func(context.Context) error {
		var complete int
		if line, complete, err = m.line(); err == nil && complete < n {
			err = fmt.Errorf("%d of %d know all", complete, n)
		}
		return err
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
	if r.received, err = received(m.at); err != nil {
		return r, err
	}
	return r, l.resting(&r, m, rest)
}

// resting is what they are told while nothing but churn goes on.
func (l *lab) resting(r *crowd, m *many, rest time.Duration) error {
	time.Sleep(settle)
	type look struct {
		line  readerLine
		bytes uint64
		used  process.Usage
		at    time.Time
	}
	see := func() (k look, err error) {
		k.at = time.Now()
		var errLine, errUsed error
		k.bytes, err = received(m.at)
		k.line, _, errLine = m.line()
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
