// Package hosts measures what thousands of hosts cost poplin-ingress: a real
// etcd and API server, the program in a network namespace, and a back end that
// answers. Inputs are options; outputs are the time to the first complete
// configuration, the time until a change is live, and memory. It refuses to
// count from anything but the request: what the API server takes is in it.
package hosts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sync/errgroup"

	"poplin.dev/poplin/test/bench/plane"
	"poplin.dev/poplin/test/bench/process"
	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/cluster/pki"
	"poplin.dev/poplin/test/cluster/progress"
	"poplin.dev/poplin/test/cluster/tools"
	"poplin.dev/poplin/test/cni"
)

// Options say how much is measured.
type Options struct {
	// Quick is a tenth of the hosts, and fewer changes.
	Quick bool
}

func (o Options) size() (hosts, changes int) {
	if o.Quick {
		return 500, 50
	}
	return 5000, 300
}

// node is the number of the namespace that everything but the control plane
// is in.
const node = 1

// lab is the control plane, and where the program runs.
type lab struct {
	plane.Plane
	node   *cni.Node
	client *http.Client
}

// result is what one run of the program showed.
type result struct {
	ready time.Duration
	live  []time.Duration
	used  process.Usage
}

// Measure is the whole of it.
func Measure(ctx context.Context, o Options) (report.Area, error) {
	steps := progress.New(os.Stderr)
	t, err := tools.Programs(ctx, steps)
	if err != nil {
		return report.Area{}, err
	}
	hosts, changes := o.size()
	a := report.Area{Name: "Ingress hosts", Options: fmt.Sprintf("up to %d Ingresses with a host each", hosts)}
	l := &lab{}
	defer l.Close()
	if err := steps.Do("control plane", func() error { return l.up(ctx, t) }); err != nil {
		return a, err
	}
	table := report.Table{
		Title: fmt.Sprintf("%d changes, one after the other", changes), Labels: []string{"Ingresses", "certificates"},
		Columns: []string{"ready s", "live ms", "p99 ms", "resident MiB", "peak MiB", "CPU s"},
	}
	var all []result
	for _, s := range []struct{ hosts, secure int }{{hosts / tenth, 0}, {hosts, 0}, {hosts, hosts / tenth}, {hosts, hosts}} {
		what := fmt.Sprint(s.hosts, " Ingresses, ", s.secure, " with certificates")
		if err := steps.Do(what, func() error { return l.populate(ctx, s.hosts, s.secure) }); err != nil {
			return a, err
		}
		var r result
		if err := steps.Do("poplin-ingress with "+what, func() (err error) { r, err = l.measure(ctx, changes); return err }); err != nil {
			return a, err
		}
		all = append(all, r)
		table.Rows = append(table.Rows, report.Row{Labels: []string{fmt.Sprint(s.hosts), fmt.Sprint(s.secure)}, Figures: []report.Figure{
			seconds(r.ready), milliseconds(report.Quantile(r.live, 0.5)), milliseconds(report.Quantile(r.live, 0.99)),
			mebibytes(r.used.Now), mebibytes(r.used.Peak), seconds(r.used.CPU),
		}})
	}
	few, many := all[0], all[1]
	a.Verdicts = []report.Verdict{
		report.AtMost("seconds until the first configuration", seconds(many.ready), 3),
		report.AtMost("milliseconds until a change is live, p99", milliseconds(report.Quantile(many.live, 0.99)), 50),
		report.AtMost("MiB of memory at its peak", mebibytes(many.used.Peak), 150),
		report.AtMost(fmt.Sprintf("exponent by which the first configuration grows, %d to %d Ingresses", hosts/tenth, hosts), report.Exponent(seconds(few.ready), seconds(many.ready), tenth), 1.2),
	}
	a.Tables = []report.Table{table}
	return a, nil
}

// tenth is the part of the hosts that has certificates in one run, and that is
// there alone in another.
const tenth = 10

func seconds(d time.Duration) report.Figure { return report.Figure(d.Seconds()) }

func milliseconds(d time.Duration) report.Figure { return report.Figure(d.Seconds() * 1000) }

func mebibytes(mb float64) report.Figure { return report.Figure(mb * 1e6 / (1 << 20)) }

// up starts the control plane and the back end.
func (l *lab) up(ctx context.Context, t tools.Tools) (err error) {
	if err := l.Up(ctx, t); err != nil {
		return err
	}
	if err := cni.Build(l.Dir, "cmd/poplin-ingress"); err != nil {
		return err
	}
	if l.node, err = cni.NewNode(filepath.Join(l.Dir, "node"), l.Dir); err != nil {
		return err
	}
	l.OnClose(l.node.Close)
	if err := l.Join(l.node, node); err != nil {
		return err
	}
	l.client = &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			return nil, err
		}
		return plane.Dialer(l.node)(ctx, network, net.JoinHostPort(plane.NodeAddress(node).String(), port))
	}}}
	var back net.Listener
	if err := errors.Join(l.node.Do(func() { back, err = net.Listen("tcp", plane.NodeAddress(node).String()+":9000") }), err); err != nil {
		return err
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "here") })}
	go func() { _ = server.Serve(back) }() // ends with Close
	l.OnClose(func() { _ = server.Close() })
	for path, o := range map[string]object{
		"/apis/networking.k8s.io/v1/ingressclasses": {
			"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": object{"name": "poplin"}, "spec": object{"controller": "poplin.dev/ingress"},
		},
		"/api/v1/namespaces/default/services": {
			"apiVersion": "v1", "kind": "Service", "metadata": object{"name": "web"}, "spec": object{"clusterIP": "None", "ports": []object{{"name": "http", "port": 80}}},
		},
		"/apis/discovery.k8s.io/v1/namespaces/default/endpointslices": {
			"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": object{"name": "web-1", "labels": object{"kubernetes.io/service-name": "web"}},
			"addressType": "IPv4", "ports": []object{{"name": "http", "port": 9000}}, "endpoints": []object{{"addresses": []string{plane.NodeAddress(node).String()}}},
		},
	} {
		if err := l.API.Send(ctx, http.MethodPost, path, o, nil); err != nil {
			return err
		}
	}
	return nil
}

type object = map[string]any

const (
	ingresses = "/apis/networking.k8s.io/v1/namespaces/default/ingresses"
	secrets   = "/api/v1/namespaces/default/secrets"
	apply     = "?fieldManager=bench&force=true"
)

// ingress is the i-th, with a host; a secure one names a Secret.
func ingress(i int, host string, secure bool) object {
	spec := object{
		"ingressClassName": "poplin",
		"rules": []object{{"host": host, "http": object{"paths": []object{{
			"path": "/", "pathType": "Prefix", "backend": object{"service": object{"name": "web", "port": object{"number": 80}}},
		}}}}},
	}
	if secure {
		spec["tls"] = []object{{"hosts": []string{host}, "secretName": name(i)}}
	}
	return object{
		"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "spec": spec,
		"metadata": object{"name": name(i), "annotations": object{"ingress.poplin.dev/ssl-redirect": "false"}},
	}
}

func name(i int) string { return fmt.Sprint("h", i) }

func host(i int) string { return name(i) + ".example.com" }

// populate makes the API server hold so many Ingresses, the last of them with
// certificates.
func (l *lab) populate(ctx context.Context, hosts, certificates int) error {
	cert, err := certificate.New("*.example.com")
	if err != nil {
		return err
	}
	var g errgroup.Group
	g.SetLimit(16)
	for i := range hosts {
		g.Go(func() error {
			secure := i >= hosts-certificates
			if secure {
				if err := l.API.Send(ctx, http.MethodPatch, secrets+"/"+name(i)+apply, json.RawMessage(cert.Secret("default", name(i))), nil); err != nil {
					return err
				}
			}
			return l.API.Send(ctx, http.MethodPatch, ingresses+"/"+name(i)+apply, ingress(i, host(i), secure), nil)
		})
	}
	return g.Wait()
}

// measure runs the program once.
func (l *lab) measure(ctx context.Context, changes int) (r result, err error) {
	run, err := process.Start(l.node, filepath.Join(l.Dir, "poplin-ingress.log"), nil, filepath.Join(l.Dir, "poplin-ingress"),
		"-http=:80", "-https=:443", "-health=:9411", "-metrics=", "-access-log=off", "-withdraw=1ms", "-drain=1s", "-kubeconfig="+l.PKI(pki.AdminKubeconfig))
	if err != nil {
		return r, err
	}
	defer run.Stop()
	until := func(url string) error {
		return api.Poll(ctx, time.Minute, url, func(ctx context.Context) error { return errors.Join(l.answers(ctx, url), run.Alive()) })
	}
	if err := until("http://node:9411/readyz"); err != nil {
		return r, err
	}
	r.ready = time.Since(run.Began)
	for n := range changes {
		added := fmt.Sprintf("new%d.example.com", n)
		begin := time.Now()
		if err := l.API.Send(ctx, http.MethodPatch, ingresses+"/"+name(n)+apply, ingress(n, added, false), nil); err != nil {
			return r, err
		}
		for l.answers(ctx, "http://"+added+"/") != nil {
			if err := errors.Join(run.Alive(), ctx.Err()); err != nil || time.Since(begin) > time.Minute {
				return r, fmt.Errorf("wait for %s: %w", added, err)
			}
			time.Sleep(time.Millisecond)
		}
		r.live = append(r.live, time.Since(begin))
	}
	r.used, err = run.Usage()
	return r, err
}

// answers wants status 200.
func (l *lab) answers(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return errors.New(resp.Status)
	}
	return nil
}
