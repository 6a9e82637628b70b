package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/ingress/api"
)

// shop is an Ingress of a host, with TLS, annotations as JSON, and a path.
func shop(name, class, annotations, path string) string {
	return fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"blue","name":%[1]q,"annotations":%[3]s},"spec":{"ingressClassName":%[2]q,
"tls":[{"hosts":["%[1]s.com"],"secretName":%[1]q}],"rules":[{"host":"%[1]s.com","http":{"paths":[{"path":%[4]q,"pathType":"Prefix","backend":{"service":{"name":"web","port":{"number":80}}}}]}}]},
"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.1"}]}}}`, name, class, annotations, path)
}

func shops(t *testing.T) *api.Server {
	t.Helper()
	s := api.New(t)
	good, err := certificate.New("good.com")
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{
		`{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"poplin"},"spec":{"controller":"poplin.dev/ingress"}}`,
		`{"apiVersion":"networking.k8s.io/v1","kind":"IngressClass","metadata":{"name":"nginx"},"spec":{"controller":"k8s.io/ingress-nginx"}}`,
		`{"apiVersion":"v1","kind":"Service","metadata":{"namespace":"blue","name":"web"},"spec":{"ports":[{"port":80}]}}`,
		`{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","metadata":{"namespace":"blue","name":"web-1","labels":{"kubernetes.io/service-name":"web"}},"addressType":"IPv4","ports":[{"port":8080}],"endpoints":[{"addresses":["10.244.0.1"]}]}`,
		good.Secret("blue", "good"), good.Secret("blue", "other"),
		shop("good", "poplin", `{}`, "/"), shop("other", "poplin", `{}`, "/"), shop("gone", "poplin", `{}`, "/"),
		shop("plain", "nginx", `{"nginx.ingress.kubernetes.io/proxy-body-size":"8m"}`, "/"), good.Secret("blue", "plain"),
		shop("odd", "nginx", `{"nginx.ingress.kubernetes.io/limit-rps":"5","nginx.ingress.kubernetes.io/rewrite-target":"/$1"}`, "/app/(.*)"),
	} {
		s.Put(o)
	}
	return s
}

func TestIngressStatus(t *testing.T) {
	s := shops(t)
	out, err := poplinctl(t, "ingress", "status", "-kubeconfig", s.Kubeconfig())
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{
		"blue/good good.com 192.0.2.1 0", "blue/gone gone.com gone - does not exist", "blue/other other.com other - is a certificate for good.com",
		"blue/gone InvalidCertificate spec.tls: Secret gone for host gone.com does not exist",
	} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "plain") {
		t.Errorf("another controller's Ingress in\n%s", out)
	}
	out, err = poplinctl(t, "ingress", "status", "-kubeconfig", s.Kubeconfig(), "-o", "json")
	var list []struct {
		Ingress      string
		Certificates []struct{ Host, Until, Problem string }
	}
	if err != nil || json.Unmarshal([]byte(out), &list) != nil || len(list) != 3 {
		t.Fatal(err, out)
	}
	if c := list[1].Certificates[0]; list[1].Ingress != "blue/good" || c.Host != "good.com" || c.Until == "" || c.Problem != "" {
		t.Errorf("%+v", list)
	}
	if len(s.Requests("PATCH"))+len(s.Requests("POST")) > 0 {
		t.Error("to look is not to write")
	}
}

func TestIngressMigrate(t *testing.T) {
	s := shops(t)
	out, err := poplinctl(t, "ingress", "migrate", "-kubeconfig", s.Kubeconfig())
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{
		"blue/plain: wants a look", // its certificate is another host's
		"work the same: nginx.ingress.kubernetes.io/proxy-body-size",
		"are ignored: nginx.ingress.kubernetes.io/limit-rps",
		"may rest on ingress-nginx's way that rewrite-target turns paths into regular expressions: all paths; the same happens here",
		"may rest on ingress-nginx's way that regular expressions ignore case and match beginnings: path /app/(.*); the same happens here",
		"2 Ingresses of k8s.io/ingress-nginx: 0 can move as they are, 2 want a look",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	out, err = poplinctl(t, "ingress", "migrate", "-kubeconfig", s.Kubeconfig(), "-o", "json", "-namespaces", "green")
	if err != nil || strings.TrimSpace(out) != "[]" {
		t.Errorf("%v %s", err, out)
	}
}

func TestIngressRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"ingress status or": {"ingress"}, "write table or json": {"ingress", "status", "-o", "yaml"}, "unknown argument": {"ingress", "migrate", "x"},
	} {
		if out, err := poplinctl(t, args...); err == nil || !strings.Contains(out, want) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
