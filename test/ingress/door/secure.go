package door

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"poplin.dev/poplin/test/browser"
	"poplin.dev/poplin/test/certificate"
)

// Apply makes objects of the namespace default, given as JSON, be as they say.
func (d *Door) Apply(ctx context.Context, objects ...string) error {
	for _, text := range objects {
		var o struct {
			Kind     string
			Metadata struct{ Name string }
		}
		if err := json.Unmarshal([]byte(text), &o); err != nil {
			return fmt.Errorf("apply an object: %w", err)
		}
		collection, found := collections[o.Kind]
		if !found {
			return fmt.Errorf("apply %s %s: where it belongs is not known", o.Kind, o.Metadata.Name)
		}
		path := fmt.Sprintf(collection, "default") + "/" + o.Metadata.Name + "?fieldManager=test&force=true"
		if err := d.server.Send(ctx, http.MethodPatch, path, json.RawMessage(text), nil); err != nil {
			return err
		}
	}
	return nil
}

// collections are the paths of kinds, by namespace.
var collections = map[string]string{
	"Secret":     "/api/v1/namespaces/%s/secrets",
	"Service":    "/api/v1/namespaces/%s/services",
	"Deployment": "/apis/apps/v1/namespaces/%s/deployments",
	"Ingress":    "/apis/networking.k8s.io/v1/namespaces/%s/ingresses",
}

// Secure serves a host over TLS from port 80 of a Service, with a certificate
// of its own.
func (d *Door) Secure(ctx context.Context, host, service string) (*certificate.Certificate, error) {
	cert, err := certificate.New(host)
	if err != nil {
		return nil, err
	}
	return cert, d.Apply(ctx, cert.Secret("default", host), Ingress(host, service, fmt.Sprintf(`"tls":[{"hosts":[%q],"secretName":%q}],`, host, host)))
}

// Ingress sends everything for a host to port 80 of a Service. It is named
// after the host; more stands in its spec, annotations under Poplin's prefix
// are like "name: value".
func Ingress(host, service, more string, annotations ...string) string {
	set := map[string]string{}
	for _, a := range annotations {
		name, value, _ := strings.Cut(a, ": ")
		set["ingress.poplin.dev/"+name] = value
	}
	text, _ := json.Marshal(set) // strings can be
	return fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"name":%q,"annotations":%s},"spec":{%s"rules":[{"host":%q,
"http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":%q,"port":{"number":80}}}}]}}]}}`, host, text, more, host, service)
}

// Browser is a Chromium outside of the cluster whose host names lead to the
// door. It believes in one certificate.
func (d *Door) Browser(ctx context.Context, dir string, cert *certificate.Certificate) (*browser.Browser, error) {
	node, err := d.Node()
	if err != nil {
		return nil, err
	}
	o := browser.Options{Namespace: d.cluster.UnderlayNamespace(), Dir: dir, Keys: []string{cert.Fingerprint()}}
	for port := range d.ports {
		o.Hosts = append(o.Hosts, fmt.Sprintf("MAP *:%s %s", port, d.At(node, port)))
	}
	return browser.Start(ctx, o)
}
