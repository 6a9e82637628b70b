package witness

import (
	"crypto/sha256"
	"encoding/hex"

	"poplin.dev/poplin/pkg/trace/way"
)

// read compares what a replica of the Ingress controller answers with what it
// should.
func read(in *way.Input, p *way.Probe, page way.Page) (w way.Witness, h way.Hop) {
	w = way.Witness{From: "node " + page.Node, To: page.URL, Endpoint: page.To.String(), Result: unknown, Why: "nobody asked"}
	for _, o := range p.Seen[page.Node].Outcomes {
		if o.Port != page.Port {
			continue
		}
		w.Why = o.Error
		want, wrong := in.Answer(), ""
		switch {
		case !o.Answered || !o.Refused && o.Status == 0:
			return w, h // whether the replica is reached is another hop's
		case o.Refused && want.Refused:
			return w, h
		case o.Refused:
			wrong = "breaks off TLS for " + in.Web.Host + ", for which there is a certificate"
		}
		if c := want.Certificate; c != nil && o.Certificate != "" && len(c.Certificate.Certificate) > 0 {
			sum := sha256.Sum256(c.Certificate.Certificate[0])
			if hex.EncodeToString(sum[:]) != o.Certificate {
				wrong = "shows another certificate than that of Secret " + c.Secret.String()
			}
		}
		const notFound = 404
		if want.Status == 0 && want.Route != nil && o.Status == notFound && len(want.Endpoints) > 0 {
			wrong = "answers 404 to " + page.URL + ", which Ingress " + want.Route.Ingress.String() + " has a route for"
		}
		w.Result = answered
		if wrong != "" {
			w.Result, w.Why = refused, "it "+wrong
			h = way.Hop{Hop: way.IngressProgram, Node: page.Node, About: "replica " + page.Replica, Status: way.OK}
			h.Broken("kubectl -n poplin-system delete pod "+page.Replica[lastSlash(page.Replica)+1:], "the replica %s: it does not have what the API server has", wrong)
		}
	}
	return w, h
}

func lastSlash(s string) int {
	for i := len(s) - 1; i >= 0; i-- {
		if s[i] == '/' {
			return i
		}
	}
	return -1
}
