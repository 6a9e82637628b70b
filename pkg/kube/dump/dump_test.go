package dump

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/kube/person"
)

// secret is planted wherever people put one.
const secret = "correct-horse-battery-staple"

// objects are what the API server has, by path.
var objects = map[string]string{
	"/api/v1/secrets": `{"items":[{"metadata":{"name":"s"},"data":{"password":"` + secret + `"}}]}`,
	"/api/v1/pods": `{"items":[{"metadata":{"name":"web","namespace":"shop","annotations":{"kubectl.kubernetes.io/last-applied-configuration":"` + secret + `","poplin.dev/note":"shown"}},
		"spec":{"nodeName":"a","initContainers":[{"name":"i","args":["` + secret + `"]}],
		"containers":[{"name":"c","image":"web:1","command":["run","--password","` + secret + `"],"env":[{"name":"PASSWORD","value":"` + secret + `"}],
		"livenessProbe":{"httpGet":{"httpHeaders":[{"name":"Authorization","value":"` + secret + `"}]}}}]},"status":{"podIP":"10.244.1.5"}}]}`,
	"/apis/networking.k8s.io/v1/ingresses":                `{"items":[{"metadata":{"name":"web","annotations":{"nginx.ingress.kubernetes.io/configuration-snippet":"` + secret + `","nginx.ingress.kubernetes.io/rewrite-target":"/"}}}]}`,
	"/apis/apps/v1/namespaces/network/daemonsets":         `{"items":[{"metadata":{"name":"poplind"},"spec":{"template":{"spec":{"containers":[{"name":"poplind","env":[{"value":"` + secret + `"}]}]}}}}]}`,
	"/api/v1/namespaces/network/configmaps":               `{"items":[{"metadata":{"name":"other"},"data":{"x":"` + secret + `"}}]}`,
	"/api/v1/namespaces/network/configmaps/poplin-config": `{"data":{"config.yaml":"logLevel: info"}}`,
	"/api/v1/namespaces/network/pods":                     `{"items":[{"metadata":{"name":"poplind-x"},"spec":{"nodeName":"a","containers":[{"name":"poplind"}]},"status":{"phase":"Running"}}]}`,
	// The daemons are in another namespace than the manifests'.
	"/api/v1/namespaces/poplin-system/pods":         `{"items":[]}`,
	"/api/v1/pods?labels":                           `{"items":[{"metadata":{"name":"poplind-x","namespace":"network"},"spec":{"nodeName":"a"},"status":{"phase":"Running"}}]}`,
	"/api/v1/namespaces/network/pods/poplind-x/log": "level=INFO msg=hello",
}

func TestNoSecretIsInTheArchive(t *testing.T) {
	var asked []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked = append(asked, r.Method+" "+r.URL.Path)
		o, found := objects[r.URL.Path+"?labels"]
		if !found || r.URL.Query().Get("labelSelector") == "" {
			o, found = objects[r.URL.Path]
		}
		if !found || r.URL.Query().Get("previous") == "true" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, o)
	}))
	defer server.Close()
	kubeconfig := filepath.Join(t.TempDir(), "kubeconfig")
	text := "apiVersion: v1\nkind: Config\ncurrent-context: x\ncontexts: [{name: x, context: {cluster: x, user: x}}]\nusers: [{name: x, user: {token: " + secret + "}}]\nclusters: [{name: x, cluster: {server: " + server.URL + "}}]\n"
	if err := os.WriteFile(kubeconfig, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := person.New(kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	var packed bytes.Buffer
	missing, err := Write(t.Context(), c, &packed, time.Unix(1_700_000_000, 0))
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, &packed)
	for name, text := range files {
		if strings.Contains(text, secret) {
			t.Errorf("a secret is in %s:\n%s", name, text)
		}
	}
	for _, request := range asked {
		if strings.Contains(request, "secrets") || !strings.HasPrefix(request, "GET ") && !strings.HasSuffix(request, "/exec") {
			t.Errorf("asked for %s", request)
		}
	}
	for name, want := range map[string]string{
		"cluster/pods.json": "10.244.1.5", "cluster/ingresses.json": `"nginx.ingress.kubernetes.io/rewrite-target": "/"`,
		"cluster/poplin-config.json": "logLevel: info", "logs/poplind-x/poplind.log": "hello", "version.txt": "poplinctl dev",
		"missing.json": "status of node a",
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("no %q in %s: %s", want, name, files[name])
		}
	}
	if !strings.Contains(files["cluster/pods.json"], `"poplin.dev/note": "shown"`) || !strings.Contains(files["cluster/pods.json"], `"image": "web:1"`) {
		t.Errorf("too much is left out: %s", files["cluster/pods.json"])
	}
	if !slices.ContainsFunc(missing, func(m string) bool { return strings.HasPrefix(m, "nodenetworks: ") }) {
		t.Errorf("missing: %v", missing)
	}
}

func unpack(t *testing.T, packed io.Reader) map[string]string {
	t.Helper()
	plain, err := gzip.NewReader(packed)
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	for r := tar.NewReader(plain); ; {
		head, err := r.Next()
		if err == io.EOF {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		files[strings.TrimPrefix(head.Name, "poplin-sysdump/")] = string(text)
	}
}
