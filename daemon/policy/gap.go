package policy

import (
	"errors"

	"poplin.dev/poplin/pkg/apply/flows"
	"poplin.dev/poplin/pkg/program/permit"
	"poplin.dev/poplin/pkg/trace"
)

// mend is for connections that began while there were no rules, and no
// connection tracking either where nobody else had rules: if it met one in the
// middle of an answer, it takes the server for the client, and every packet of
// the connection would be dropped from now on. Which way it was begun the
// policies say: those that they deny as they are, and permit the other way, are
// turned around. What fails is told, and is no reason not to enforce policies.
func (p *pass) mend() {
	turned, err := turnAround(p.table.Program())
	if err != nil {
		p.deps.Log.Warn("connections that began while there were no rules may have to be made again", "error", err)
	}
	if turned > 0 {
		p.deps.Log.Info("connections that began while there were no rules were taken for begun by the wrong end", "mended", turned)
	}
}

func turnAround(program permit.Program) (turned int, err error) {
	conn, err := flows.Open()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return conn.Turn(func(m flows.Met) bool {
		_, from := program.Loops[m.From.Addr()]
		_, to := program.Loops[m.To.Addr()]
		if !from && !to {
			return false
		}
		passes := func(p trace.Packet) bool { return trace.Policy(program, p).Action == trace.Pass }
		return !passes(trace.Packet{Src: m.From.Addr(), Dst: m.To, Proto: m.Proto}) &&
			passes(trace.Packet{Src: m.To.Addr(), Dst: m.From, Proto: m.Proto})
	})
}
