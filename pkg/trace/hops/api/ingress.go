package api

import (
	"fmt"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/trace/way"
)

// Ingress: an Ingress of a class of ours has the host and the path, its
// certificate is good, and replicas of the controller run.
func Ingress(in *way.Input) []way.Hop {
	switch {
	case in.Web == nil && in.To.Forgotten:
		return forgotten(in.To.Name)
	case in.Web == nil:
		return nil
	}
	about := in.Web.Host + in.Web.Path
	class := way.Hop{Hop: way.IngressClass, About: about}
	route := way.Hop{Hop: way.IngressRoute, About: about}
	tls := way.Hop{Hop: way.IngressTLS, About: in.Web.Host}
	for _, f := range in.Web.Findings {
		for _, h := range []*way.Hop{&class, &route, &tls} {
			if h.Hop == f.Class {
				h.Broken(f.Cure, "Ingress %s: %s", f.Ingress, f.Text)
			}
		}
	}
	answer := in.Answer()
	for _, s := range append(answer.Steps, in.Web.Notes...) {
		route.Saw("%s", s)
	}
	switch {
	case answer.Refused:
		tls.Broken("kubectl get ingress -A", "no certificate covers %s", in.Web.Host)
	case answer.Route == nil:
		route.Broken("kubectl get ingress -A", "no Ingress takes %s%s: %s", in.Web.Host, in.Web.Path, last(answer.Steps))
	case answer.Status >= 500:
		route.Suspect(fmt.Sprintf("kubectl -n %s describe ingress %s", answer.Route.Ingress.Namespace, answer.Route.Ingress.Name),
			"it is answered with %d: %s", answer.Status, last(answer.Steps))
	case answer.Status >= 400:
		route.Broken(fmt.Sprintf("kubectl -n %s describe ingress %s", answer.Route.Ingress.Namespace, answer.Route.Ingress.Name),
			"it is answered with %d: %s", answer.Status, last(answer.Steps))
	}
	if c := answer.Certificate; c != nil {
		tls.Saw("certificate of Secret %s, until %s", c.Secret, c.NotAfter.UTC().Format("2006-01-02 15:04"))
		if in.Now.After(c.NotAfter) {
			tls.Broken(fmt.Sprintf("kubectl -n %s get secret %s # and renew it", c.Secret.Namespace, c.Secret.Name), "the certificate of Secret %s ended at %s", c.Secret, c.NotAfter.UTC().Format("2006-01-02 15:04"))
		}
	}
	hops := []way.Hop{class, route}
	if in.Web.TLS {
		hops = append(hops, tls)
	}
	return append(hops, replicas(in))
}

// forgotten: no node keeps what Ingresses say.
func forgotten(url string) (hops []way.Hop) {
	for _, class := range []way.Class{way.IngressClass, way.IngressRoute, way.IngressTLS, way.IngressProgram} {
		h := way.Hop{Hop: class, About: url}
		h.Unknown("Ingresses and their Secrets are not known: the API server is away")
		hops = append(hops, h)
	}
	return hops
}

// replicas: the controller runs, is ready, and serves what the API server has.
func replicas(in *way.Input) way.Hop {
	h := way.Hop{Hop: way.IngressProgram, About: "poplin-ingress"}
	ready := 0
	for _, p := range in.Web.Replicas {
		if p.Ready() && p.Deleted == nil {
			ready++
			serves(&h, p, in.Web.Told[p.String()])
			continue
		}
		h.Suspect(fmt.Sprintf("kubectl -n %s describe pod %s", p.Namespace, p.Name), "pod %s is not ready", p)
	}
	h.Saw("%d of %d replicas are ready", ready, len(in.Web.Replicas))
	if ready == 0 {
		h.Broken("kubectl -n poplin-system get pods -l app.kubernetes.io/name=poplin-ingress", "no replica of poplin-ingress is ready")
	}
	return h
}

// serves: what a replica has programmed is what the objects say. One that has been
// ready once stays so without the API server, and misses changes.
func serves(h *way.Hop, p object.Pod, t way.Told) {
	switch {
	case t.Unknown != "":
		h.Unknown("what pod %s has programmed is not known: %s", p, t.Unknown)
	case t.Differs != "":
		h.Broken(fmt.Sprintf("kubectl -n %s logs %s # why it does not follow the API server", p.Namespace, p.Name), "pod %s has missed a change: %s", p, t.Differs)
	default:
		h.Saw("pod %s has programmed what the objects say", p)
	}
}

func last(steps []string) string {
	if len(steps) == 0 {
		return ""
	}
	return steps[len(steps)-1]
}
