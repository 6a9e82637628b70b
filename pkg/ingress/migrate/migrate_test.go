package migrate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
)

const nginx = "nginx.ingress.kubernetes.io/"

// ing has one host, paths like "Prefix /", and annotations like "name: value".
func ing(name, class, host string, paths []string, annotations ...string) *cluster.Ingress {
	i := &cluster.Ingress{ObjectName: cluster.ObjectName{Namespace: "default", Name: name}, Class: class, Annotations: map[string]string{}}
	r := cluster.IngressRule{Host: host}
	for _, p := range paths {
		kind, path, _ := strings.Cut(p, " ")
		r.Paths = append(r.Paths, cluster.IngressPath{Path: path, Type: cluster.PathType(kind), Backend: cluster.IngressBackend{Service: "web", Port: 80}})
	}
	i.Rules = []cluster.IngressRule{r}
	for _, a := range annotations {
		key, value, _ := strings.Cut(a, ": ")
		i.Annotations[key] = value
	}
	return i
}

func TestReports(t *testing.T) {
	all := []*cluster.Ingress{
		ing("f-other", "other", "f.com", []string{"Prefix /"}),
		ing("a-plain", "nginx", "a.com", []string{"Prefix /"}, nginx+"proxy-body-size: 8m", nginx+"proxy-buffering: off", "cert-manager.io/issuer: x"),
		ing("b-lost", "nginx", "b.com", []string{"Prefix /"}, nginx+"limit-rps: 5", nginx+"auth-tls-secret: default/ca", nginx+"proxy-read-timeout: soon", nginx+"configuration-snippet: deny all;"),
		ing("c-regexp", "nginx", "c.com", []string{"ImplementationSpecific /app(/|$)(.*)", "Exact /exact"}, nginx+"rewrite-target: /$2"),
		ing("d-neighbour", "nginx", "c.com", []string{"Prefix /Next/"}),
		ing("e-alone", "nginx", "e.com", []string{"Prefix /caf%C3%A9"}),
	}
	c := ingress.New(ingress.Config{Controllers: []string{"k8s.io/ingress-nginx"}})
	c.SetClass("nginx", &cluster.IngressClass{Name: "nginx", Controller: "k8s.io/ingress-nginx"})
	for _, i := range all {
		c.SetIngress(i.ObjectName, i)
	}
	var got []string
	for _, r := range Reports(all, c.Compile(time.Now())) {
		strip := func(list []string) string { return strings.ReplaceAll(strings.Join(list, " "), nginx, "") }
		// One finding of each is that the Service does not exist here.
		got = append(got, fmt.Sprintf("%s works[%s] none[%s] ignored[%s] refused[%s] surprises %d findings %d",
			r.Ingress.Name, strip(r.Works), strip(r.NoEffect), strip(r.Ignored), strip(r.Refused), len(r.Surprises), len(r.Findings)-1))
		if r.Ready() {
			t.Errorf("%s is ready without its Service", r.Ingress)
		}
	}
	want := []string{
		"a-plain works[proxy-body-size] none[proxy-buffering] ignored[] refused[] surprises 0 findings 0",
		"b-lost works[] none[] ignored[limit-rps proxy-read-timeout] refused[auth-tls-secret configuration-snippet] surprises 0 findings 4",
		"c-regexp works[rewrite-target] none[] ignored[] refused[] surprises 3 findings 1",
		"d-neighbour works[] none[] ignored[] refused[] surprises 2 findings 0",
		"e-alone works[] none[] ignored[] refused[] surprises 1 findings 0",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
