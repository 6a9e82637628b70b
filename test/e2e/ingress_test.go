//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/browser"
	"poplin.dev/poplin/test/certificate"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/ingress/door"
	"poplin.dev/poplin/test/ingress/traffic"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/need"
)

// host is the one of the seed's Ingress; secureHost has TLS.
const (
	host       = "myapp.example.com"
	secureHost = "secure.example.com"
)

var (
	openOnce sync.Once
	opened   *door.Door
	openErr  error
)

// entrance is the shared cluster with the example and poplin-ingress on it.
func entrance(t *testing.T) (*cluster.Cluster, *door.Door) {
	t.Helper()
	c := deployed(t)
	openOnce.Do(func() { opened, openErr = door.Install(t.Context(), c) })
	if openErr != nil {
		t.Fatal(openErr)
	}
	return c, opened
}

// secured serves the example under secureHost.
func secured(t *testing.T, d *door.Door) *certificate.Certificate {
	t.Helper()
	cert, err := d.Secure(t.Context(), secureHost, "web-service")
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// The seed's Ingress, which names no class, answers at a node port, and
// another host does not.
func TestIngressAnswersAtANodePort(t *testing.T) {
	_, d := entrance(t)
	client := answersAtANodePort(t, d)
	if got := traffic.Get(client, "http://other.example.com/hostname"); !strings.HasPrefix(got, "404 ") {
		t.Errorf("a host that no Ingress names answered %q", got)
	}
	// The client's own address arrives at the pod.
	if got := traffic.Get(client, "http://"+host+"/header?key=X-Forwarded-For"); got != "200 172.30.0.1" {
		t.Errorf("the client was seen as %q", got)
	}
}

// answersAtANodePort returns the client that got the answer.
func answersAtANodePort(t *testing.T, d *door.Door) *http.Client {
	t.Helper()
	client := traffic.Client(d.Dial, nil, false)
	await.Success(t, 30*time.Second, func() error {
		if got := traffic.Get(client, "http://"+host+"/hostname"); !strings.HasPrefix(got, "200 web-app-") {
			return fmt.Errorf("%s answered %q", host, got)
		}
		return nil
	})
	return client
}

// curl on a machine outside verifies the certificate that the test made and
// speaks HTTP/2; plain HTTP is sent there.
func TestIngressOverTLSWithCurl(t *testing.T) {
	c, d := entrance(t)
	cert := secured(t, d)
	ca := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(ca, cert.PEM, 0o600); err != nil {
		t.Fatal(err)
	}
	node, err := d.Node()
	if err != nil {
		t.Fatal(err)
	}
	curl := func(url string) string {
		args := []string{
			"--net=" + c.UnderlayNamespace(), "curl", "--silent", "--show-error", "--max-time", "10", "--noproxy", "*", "--cacert", ca, "--location",
			"--connect-to", secureHost + ":80:" + d.At(node, "80").String(), "--connect-to", secureHost + ":443:" + d.At(node, "443").String(),
			"--write-out", " %{url_effective} %{http_version} %{num_redirects}", url,
		}
		out, err := exec.CommandContext(t.Context(), "nsenter", args...).CombinedOutput()
		if err != nil {
			return fmt.Sprint(err, " ", string(out))
		}
		return string(out)
	}
	await.Success(t, 30*time.Second, func() error {
		got := curl("http://" + secureHost + "/hostname")
		if !strings.HasPrefix(got, "web-app-") || !strings.HasSuffix(got, " https://"+secureHost+"/hostname 2 1") {
			return fmt.Errorf("curl said %q", got)
		}
		return nil
	})
}

// A page in Chromium: from plain HTTP to HTTPS, over HTTP/2, with many requests
// at once. What the browser shows is kept as dist/ingress.png.
func TestIngressInABrowser(t *testing.T) {
	_, d := entrance(t)
	need.Program(t, "chromedriver", "chromium-driver")
	cert := secured(t, d)
	b, err := d.Browser(t.Context(), t.TempDir(), cert)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	var page browser.Page
	await.Success(t, 30*time.Second, func() error {
		if page, err = b.Load(t.Context(), "http://"+secureHost+"/hostname"); err == nil && !strings.HasPrefix(page.Text, "web-app-") {
			err = fmt.Errorf("the page shows %q", page.Text)
		}
		return err
	})
	if page.URL != "https://"+secureHost+"/hostname" || page.Protocol != "h2" || !page.Secure {
		t.Errorf("the page came as %+v", page)
	}
	var fetched []string
	if err := b.Run(t.Context(), fetchMany, &fetched); err != nil {
		t.Fatal(err)
	}
	slices.Sort(fetched)
	if len(fetched) != 50 || !strings.HasPrefix(fetched[0], "200 h2 web-app-") || !strings.HasPrefix(fetched[49], "200 h2 web-app-") {
		t.Errorf("fifty requests of one page: %v", slices.Compact(fetched))
	}
	png, err := b.Screenshot(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	root, err := cluster.ProjectRoot()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dist/ingress.png"), png, 0o644); err != nil {
		t.Fatal(err)
	}
}

// What the Service in front says of its addresses becomes the status of our
// Ingresses, and of no others. DNS controllers read it from there.
func TestIngressStatus(t *testing.T) {
	c, d := entrance(t)
	if err := d.Apply(t.Context(), door.Ingress("other.example.com", "web-service", `"ingressClassName":"someone-elses",`)); err != nil {
		t.Fatal(err)
	}
	type address struct {
		IP       string `json:"ip,omitempty"`
		Hostname string `json:"hostname,omitempty"`
	}
	for _, addresses := range [][]address{{{IP: "172.30.0.200"}, {Hostname: "lb.example.com"}}, {{IP: "172.30.0.201"}}, {}} {
		patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": addresses}}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := c.Kubectl(t.Context(), "-n", door.Namespace, "patch", "service", door.Name, "--subresource=status", "--type=merge", "-p", string(patch)); err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string][]address{"web-ingress": addresses, "other.example.com": {}} {
			await.Success(t, 30*time.Second, func() error {
				var i struct {
					Status struct{ LoadBalancer struct{ Ingress []address } }
				}
				get(t, c, &i, "ingress", name)
				if got := i.Status.LoadBalancer.Ingress; !slices.Equal(got, want) {
					return fmt.Errorf("the status of %s is %v, want %v", name, got, want)
				}
				return nil
			})
		}
	}
}

// The controller's account reads what it serves and nothing else. Secrets it
// gets by name; where that right is bound by namespace, only there.
func TestIngressRights(t *testing.T) {
	c, _ := entrance(t)
	for _, args := range [][]string{
		{"create", "serviceaccount", "narrow"},
		{"create", "rolebinding", "narrow", "--clusterrole=poplin-ingress-secrets", "--serviceaccount=default:narrow"},
	} {
		if _, err := c.Kubectl(t.Context(), args...); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for _, kind := range []string{"rolebinding", "serviceaccount"} {
			_, _ = c.Kubectl(context.WithoutCancel(t.Context()), "delete", kind, "narrow")
		}
	})
	for account, rights := range map[string]map[string]string{
		"poplin-system:poplin-ingress": {
			"list ingresses.networking.k8s.io -A": "yes", "watch endpointslices.discovery.k8s.io -A": "yes", "patch ingresses.networking.k8s.io --subresource=status": "yes",
			"get secrets -n kube-system": "yes", "list secrets -n default": "no", "update ingresses.networking.k8s.io": "no", "list pods": "no", "create pods": "no", "get configmaps": "no",
		},
		"default:narrow": {"get secrets -n default": "yes", "watch secrets -n default": "yes", "list secrets -n default": "no", "get secrets -n kube-system": "no"},
	} {
		for right, want := range rights {
			args := append([]string{"auth", "can-i", "--as=system:serviceaccount:" + account}, strings.Fields(right)...)
			out, _ := c.Kubectl(t.Context(), args...) // its status is the answer, too
			if got := strings.TrimSpace(string(out)); got != want {
				t.Errorf("may %s %s? %q, want %q", account, right, got, want)
			}
		}
	}
}

// Two replicas on two nodes, of which a drain takes one at a time, and which
// run as nobody with no capability and nothing to write to.
func TestIngressReplicas(t *testing.T) {
	c, d := entrance(t)
	replicas, err := d.Replicas(t.Context())
	if err != nil || len(replicas) != 2 || replicas[0].Node == replicas[1].Node {
		t.Errorf("the replicas are %v (%v), want two on two nodes", replicas, err)
	}
	var budget struct {
		Status struct{ DisruptionsAllowed, ExpectedPods int }
	}
	await.Success(t, 30*time.Second, func() error {
		get(t, c, &budget, "-n", door.Namespace, "poddisruptionbudget", door.Name)
		if budget.Status.DisruptionsAllowed != 1 || budget.Status.ExpectedPods != 2 {
			return fmt.Errorf("the disruption budget is %+v", budget.Status)
		}
		return nil
	})
	for _, r := range replicas {
		pid := live.Process(t, live.Namespace(t, c, r.Node, r.Addr), "poplin-ingress", "")
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Uid:\t65532\t65532\t65532\t65532\n", "CapPrm:\t0000000000000000\n", "CapBnd:\t0000000000000000\n", "NoNewPrivs:\t1\n", "Seccomp:\t2\n"} {
			if !strings.Contains(string(status), want) {
				t.Errorf("%s on %s: want %q in\n%s", r.Pod, r.Node, want, status)
			}
		}
		mounts, err := os.ReadFile(fmt.Sprintf("/proc/%d/mounts", pid))
		if err != nil || !regexp.MustCompile(`(?m)^\S+ / \S+ ro,`).Match(mounts) {
			t.Errorf("%s on %s: its root is not read-only (%v):\n%s", r.Pod, r.Node, err, mounts)
		}
	}
}

// fetchMany asks for fifty things at once and shows what came.
const fetchMany = `
const url = n => location.origin + "/hostname?" + n;
return Promise.all([...Array(50).keys()].map(async n => {
  const answer = await fetch(url(n)), name = await answer.text();
  return answer.status + " " + performance.getEntriesByName(url(n))[0].nextHopProtocol + " " + name;
})).then(all => {
  document.body.innerHTML = "<h1>" + location.host + "</h1>" + [...new Set(all)].map(line => "<p>" + line + "</p>").join("");
  return all;
});`
