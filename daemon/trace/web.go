package trace

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strconv"
	"time"

	"poplin.dev/poplin/daemon/ingress/view"
	"poplin.dev/poplin/daemon/trace/replicas"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/cluster/reason"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/ingress"
	kube "poplin.dev/poplin/pkg/kube/ingress"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/trace"
	"poplin.dev/poplin/pkg/trace/way"
)

// web finds what a URL stands for: the Ingress controller's Service in front,
// and the Service to which the route leads behind it.
func (g *gatherer) web(ctx context.Context, u *url.URL, t way.Target) (way.Target, error) {
	t.Proto, t.Port = service.TCP, 80
	if u.Scheme == "https" {
		t.Port = 443
	}
	if p, err := strconv.ParseUint(u.Port(), 10, 16); err == nil {
		t.Port = uint16(p)
	}
	if g.objects.Away() { // Ingresses and Secrets are no node's matter
		t.Forgotten = true
		g.front(ctx, &t, u.Scheme)
		return t, nil
	}
	path := u.EscapedPath()
	if path == "" {
		path = "/"
	}
	w := &way.Web{TLS: u.Scheme == "https", Host: u.Hostname(), Path: path}
	g.in.Web = w
	var err error
	if w.Replicas, err = person.List[object.Pod](ctx, g.api, person.Path("v1", g.conf.System, "pods", ""), "app.kubernetes.io/name=poplin-ingress", ""); err != nil {
		return t, err
	}
	v, err := g.serve(ctx, w)
	if err != nil {
		return t, err
	}
	if err := g.findings(ctx, w, v); err != nil {
		return t, err
	}
	g.front(ctx, &t, u.Scheme)
	return t, g.behind(ctx)
}

// settle is how long a change may take to reach all replicas.
const settle = 500 * time.Millisecond

// serve compiles what replicas should serve, and asks what they do. Where that
// differs it may be a change under way: both are looked at again.
func (g *gatherer) serve(ctx context.Context, w *way.Web) (v *view.View, err error) {
	for turn := range 2 {
		if turn > 0 {
			time.Sleep(settle)
		}
		answers := replicas.Ask(ctx, g.api, w.Replicas, g.in.Visit())
		settings := answers.Settings()
		v, err = view.Read(ctx, kube.Config{
			Kubeconfig: g.conf.Kubeconfig, Namespaces: settings.Namespaces, Component: "poplinctl", Log: slog.New(slog.DiscardHandler),
		}, settings.Compile)
		if err != nil {
			return nil, err
		}
		w.Program = v.Result.Program
		if w.Told = answers.Compare(settings, trace.Served(w.Program, g.in.Visit())); !w.Differs() {
			break
		}
	}
	return v, nil
}

// front is the controller's Service.
func (g *gatherer) front(ctx context.Context, t *way.Target, port string) {
	s, err := g.objects.Service(ctx, service.Key{Namespace: g.conf.System, Name: "poplin-ingress"})
	if err == nil {
		err = g.service(ctx, t, s, port)
	}
	if err != nil {
		t.Missing = "the Ingress controller's Service cannot be read: " + err.Error()
	}
}

// behind finds the Service of the route.
func (g *gatherer) behind(ctx context.Context) error {
	a := g.in.Answer()
	if a.Route == nil {
		return nil
	}
	name := a.Route.Backend.Service
	b := &way.Target{Name: a.Route.Backend.String(), Proto: service.TCP}
	s, err := g.objects.Service(ctx, service.Key{Namespace: name.Namespace, Name: name.Name})
	if err != nil {
		g.in.Web.Findings = append(g.in.Web.Findings, way.Finding{
			Ingress: a.Route.Ingress.String(), Class: way.IngressRoute, Text: fmt.Sprintf("its Service %s: %v", name, err),
			Cure: fmt.Sprintf("kubectl -n %s edit ingress %s", a.Route.Ingress.Namespace, a.Route.Ingress.Name),
		})
		return nil
	}
	// The proxy asks endpoints, wherever clients are.
	from := g.in.From
	g.in.From = way.End{Node: "poplin-ingress"}
	err = g.service(ctx, b, s, a.Route.Backend.Port)
	g.in.From = from
	if _, ok := b.ServicePort(); !ok && err == nil {
		g.in.Web.Findings = append(g.in.Web.Findings, way.Finding{
			Ingress: a.Route.Ingress.String(), Class: way.IngressRoute, Text: fmt.Sprintf("Service %s has no port %s", name, a.Route.Backend.Port),
			Cure: fmt.Sprintf("kubectl -n %s edit ingress %s", a.Route.Ingress.Namespace, a.Route.Ingress.Name),
		})
		return nil
	}
	g.in.Behind = b
	return err
}

// rawIngress is an Ingress of any class.
type rawIngress struct {
	object.Meta `json:"metadata"`
	Spec        struct {
		Class string `json:"ingressClassName"`
		Rules []struct {
			Host string `json:"host"`
		} `json:"rules"`
	} `json:"spec"`
}

// findings says what is wrong with the Ingresses of the host.
func (g *gatherer) findings(ctx context.Context, w *way.Web, v *view.View) error {
	claimed := false
	for _, i := range v.Ingresses {
		if !slices.ContainsFunc(i.Rules, func(r cluster.IngressRule) bool { return r.Host == w.Host }) {
			continue
		}
		claimed = true
		cure := fmt.Sprintf("kubectl -n %s edit ingress %s", i.Namespace, i.Name)
		for _, c := range v.Conditions(i.ObjectName) {
			if c.Host == w.Host && c.Problem != "" && w.TLS {
				w.Findings = append(w.Findings, way.Finding{
					Ingress: i.String(), Class: way.IngressTLS, Text: fmt.Sprintf("Secret %s for host %s %s", c.Secret, c.Host, c.Problem),
					Cure: cure,
				})
			}
		}
		for _, f := range v.Result.Findings[i.ObjectName] {
			if f.Reason.Warns() && f.Reason != reason.InvalidCertificate {
				w.Notes = append(w.Notes, fmt.Sprintf("Ingress %s: %s", i.ObjectName, f.Text))
			}
		}
	}
	if claimed {
		return nil
	}
	all, err := person.List[rawIngress](ctx, g.api, person.Path("networking.k8s.io/v1", "", "ingresses", ""), "", "")
	if err != nil {
		return err
	}
	for _, i := range all {
		for _, r := range i.Spec.Rules {
			if r.Host == w.Host {
				w.Findings = append(w.Findings, way.Finding{
					Ingress: i.String(), Class: way.IngressClass,
					Text: fmt.Sprintf("its class %q is not one of Poplin's: set spec.ingressClassName to the name of an IngressClass with controller %s", i.Spec.Class, ingress.Controller),
					Cure: fmt.Sprintf("kubectl -n %s patch ingress %s -p '{\"spec\":{\"ingressClassName\":\"poplin\"}}'", i.Namespace, i.Name),
				})
			}
		}
	}
	return nil
}
