package witness

import "poplin.dev/poplin/pkg/trace/way"

// looked judges the question that the client asked the name server.
func looked(in *way.Input, p *way.Probe) (w way.Witness, h way.Hop) {
	ask := p.Lookup
	w = way.Witness{From: in.From.String(), To: ask.Name + " at " + ask.To.String(), Result: unknown, Why: p.Absent[ask.Sender]}
	h = way.Hop{Hop: way.DNS, About: "a real question for " + ask.Name, Status: way.OK}
	for _, o := range p.Seen[ask.Sender].Outcomes {
		if o.Port != ask.Port {
			continue
		}
		w.Why = o.Error
		switch {
		case o.Answered:
			w.Result = answered
			return w, way.Hop{}
		case o.Unsent:
		case o.Refused:
			w.Result = refused
			// Each name server remembers for a while what there was not.
			h.Suspect("kubectl -n kube-system rollout restart deployment coredns # unless it was made just now",
				"a name server at %s says that there is no %s", ask.To, ask.Name)
			return w, h
		default:
			w.Result = lost
			h.Broken("kubectl -n kube-system get pods -l k8s-app=kube-dns -o wide", "the name server at %s does not answer the client", ask.To)
			return w, h
		}
	}
	h.Unknown("no question could be asked: %s", w.Why)
	return w, h
}
