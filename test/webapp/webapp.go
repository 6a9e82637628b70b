// Package webapp deploys the example that the demo and the end-to-end tests
// share, and asks its pods who reaches whom. Input is a way to run kubectl;
// outputs are values to print or to assert on. It refuses to know what network
// the cluster runs.
package webapp

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"time"
)

// Kubectl runs kubectl as the cluster's administrator and returns its output.
type Kubectl func(ctx context.Context, args ...string) ([]byte, error)

// Port is where every pod of the example answers HTTP.
const Port = 8080

// Pod is what the API server says of a running pod.
type Pod struct {
	Name, Node string
	// IPs is status.podIPs: one address per family.
	IPs []netip.Addr
}

// Deploy applies the example (Deployment, Services, Ingress) and a pod on every
// node, from the checkout at root, and waits until all of them are ready.
func Deploy(ctx context.Context, kubectl Kubectl, root string) error {
	args := []string{"apply"}
	for _, f := range []string{"seed/web-app.yaml", "seed/web-service.yaml", "seed/web-ingress.yaml", "demo/web-node-port.yaml", "demo/probe.yaml"} {
		args = append(args, "-f", filepath.Join(root, "test/testdata", f))
	}
	if _, err := kubectl(ctx, args...); err != nil {
		return err
	}
	for _, w := range []string{"deployment/web-app", "daemonset/probe"} {
		if _, err := kubectl(ctx, "rollout", "status", w, "--timeout=90s"); err != nil {
			return err
		}
	}
	return nil
}

// Pods lists the ready pods that a label selector names ("" is all), in the
// default namespace.
func Pods(ctx context.Context, kubectl Kubectl, selector string) ([]Pod, error) {
	return PodsIn(ctx, kubectl, "default", selector)
}

// PodsIn lists those of another namespace.
func PodsIn(ctx context.Context, kubectl Kubectl, namespace, selector string) ([]Pod, error) {
	out, err := kubectl(ctx, "get", "pods", "-n", namespace, "-o", "json", "-l", selector)
	if err != nil {
		return nil, err
	}
	var list struct {
		Items []struct {
			Metadata struct {
				Name              string
				DeletionTimestamp *time.Time
			}
			Spec   struct{ NodeName string }
			Status struct{ PodIPs []struct{ IP netip.Addr } }
		}
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read the list of pods: %w", err)
	}
	var pods []Pod
	for _, i := range list.Items {
		if i.Metadata.DeletionTimestamp != nil {
			continue
		}
		p := Pod{Name: i.Metadata.Name, Node: i.Spec.NodeName}
		for _, ip := range i.Status.PodIPs {
			p.IPs = append(p.IPs, ip.IP)
		}
		pods = append(pods, p)
	}
	return pods, nil
}

// Reach is one request from a pod to another's address.
type Reach struct {
	From, To Pod
	Addr     netip.Addr
	// Seen is the source address the server saw; invalid if no answer came.
	Seen netip.Addr
	// Answer is what came instead of an address.
	Answer string
}

// OK reports whether the server answered and saw the client pod's own address.
func (r Reach) OK() bool {
	for _, ip := range r.From.IPs {
		if ip == r.Seen {
			return true
		}
	}
	return false
}

func (r Reach) String() string {
	if r.OK() {
		return fmt.Sprintf("%s (%s) -> %s: seen as %s", r.From.Name, r.From.Node, r.Addr, r.Seen)
	}
	return fmt.Sprintf("%s (%s) -> %s on %s at %s: want an answer that saw one of %v, got %q",
		r.From.Name, r.From.Node, r.To.Name, r.To.Node, r.Addr, r.From.IPs, r.Answer)
}

// Matrix sends one request from each pod to each address of each other pod.
func Matrix(ctx context.Context, kubectl Kubectl, pods []Pod) ([]Reach, error) {
	var all []Reach
	for _, from := range pods {
		var reaches []Reach
		for _, to := range pods {
			if to.Name == from.Name {
				continue
			}
			for _, ip := range to.IPs {
				reaches = append(reaches, Reach{From: from, To: to, Addr: ip})
			}
		}
		answers, err := Get(ctx, kubectl, from.Name, urls(reaches))
		if err != nil {
			return nil, err
		}
		for i := range reaches {
			reaches[i].Answer = answers[i]
			if ap, err := netip.ParseAddrPort(answers[i]); err == nil {
				reaches[i].Seen = ap.Addr().Unmap()
			}
		}
		all = append(all, reaches...)
	}
	return all, nil
}

func urls(reaches []Reach) []string {
	var u []string
	for _, r := range reaches {
		u = append(u, fmt.Sprintf("http://%s/clientip", netip.AddrPortFrom(r.Addr, Port)))
	}
	return u
}

// Get fetches each URL from inside a pod, one after the other; an answer that
// does not come within 5 s is "no answer".
func Get(ctx context.Context, kubectl Kubectl, pod string, urls []string) ([]string, error) {
	script := `for u in "$@"; do a=$(curl -s -m 5 "$u") || a="no answer"; echo "$a" | tr -d '\n'; echo; done`
	out, err := kubectl(ctx, append([]string{"exec", pod, "--", "sh", "-c", script, "sh"}, urls...)...)
	if err != nil {
		return nil, err
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(urls) {
		return nil, fmt.Errorf("ask %d addresses from pod %s: %d answers:\n%s", len(urls), pod, len(answers), out)
	}
	return answers, nil
}
