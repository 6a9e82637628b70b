//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
)

// object is a Kubernetes object, or a patch.
type object = map[string]any

// actor sends requests to the API server under an identity of its own.
type actor struct {
	server string
	client *http.Client
}

// as makes an actor: identify leaves in the configuration what it shows. The
// administrator's certificate is in it at first.
func as(t *testing.T, c *cluster.Cluster, identify func(*rest.Config)) actor {
	t.Helper()
	rc, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
	if err != nil {
		t.Fatal(err)
	}
	rc.Dial = c.DialContext
	identify(rc)
	client, err := rest.HTTPClientFor(rc)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	return actor{rc.Host, client}
}

func administrator(t *testing.T, c *cluster.Cluster) actor { return as(t, c, func(*rest.Config) {}) }

// withToken shows a token that the API server makes for the daemon's account,
// as the kubelet asks for it on behalf of a pod.
func withToken(t *testing.T, c *cluster.Cluster, bound ...string) actor {
	t.Helper()
	out, err := c.Kubectl(t.Context(), append([]string{"-n", "poplin-system", "create", "token", "poplind"}, bound...)...)
	if err != nil {
		t.Fatal(err)
	}
	return as(t, c, func(rc *rest.Config) {
		rc.TLSClientConfig.CertData, rc.TLSClientConfig.CertFile = nil, ""
		rc.TLSClientConfig.KeyData, rc.TLSClientConfig.KeyFile = nil, ""
		rc.BearerToken = strings.TrimSpace(string(out))
	})
}

// daemonOf is the daemon of a node, by its token.
func daemonOf(t *testing.T, c *cluster.Cluster, node string) actor {
	t.Helper()
	return withToken(t, c, "--bound-object-kind=Pod", "--bound-object-name="+daemonPod(t, c, node))
}

// daemonPod is the name of a node's daemon's pod.
func daemonPod(t *testing.T, c *cluster.Cluster, node string) string {
	t.Helper()
	var pods struct {
		Items []struct{ Metadata struct{ Name string } }
	}
	get(t, c, &pods, "pods", "-n", "poplin-system", "-l", "app.kubernetes.io/name=poplind", "--field-selector=spec.nodeName="+node)
	if len(pods.Items) != 1 {
		t.Fatalf("%d daemons on %s, want 1", len(pods.Items), node)
	}
	return pods.Items[0].Metadata.Name
}

// try sends a request that changes nothing, but is judged like any other.
func (a actor) try(ctx context.Context, method, path string, body object) error {
	return a.do(ctx, method, path+"?dryRun=All", body)
}

// do sends a request; what the answer says against it is the error.
func (a actor) do(ctx context.Context, method, path string, body object) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		request.Header.Set("Content-Type", "application/strategic-merge-patch+json")
	}
	response, err := a.client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil || response.StatusCode < 300 {
		return err
	}
	var status struct{ Message string }
	_ = json.Unmarshal(answer, &status)
	return fmt.Errorf("%s: %s", response.Status, status.Message)
}

// attempt is a request and what the answer must say; empty: that it is done.
type attempt struct {
	name         string
	who          actor
	method, path string
	body         object
	want         string
}

func judge(t *testing.T, attempts []attempt) {
	t.Helper()
	for _, a := range attempts {
		err := a.who.try(t.Context(), a.method, a.path, a.body)
		switch {
		case a.want == "" && err != nil:
			t.Errorf("%s: refused: %v", a.name, err)
		case a.want != "" && err == nil:
			t.Errorf("%s: done, want %q", a.name, a.want)
		case a.want != "" && !strings.Contains(err.Error(), a.want):
			t.Errorf("%s: %v, want %q", a.name, err, a.want)
		}
	}
}

// A daemon writes its own NodeNetwork, with its own Node's ranges and
// addresses; another node's real token is of no use, and the administrator
// cannot give a node what is another's.
func TestNodeNetworkIsItsNodesOwn(t *testing.T) {
	c := shared(t)
	const networks = "/apis/poplin.dev/v1alpha1/nodenetworks"
	all := nodes(t, c)
	own, other := daemonOf(t, c, "worker-1"), daemonOf(t, c, "worker-2")
	unbound, admin := withToken(t, c), administrator(t, c)
	// changed is worker-1's object with fields of its spec replaced.
	changed := func(fields object) object {
		o := object{}
		get(t, c, &o, "nodenetwork", "worker-1")
		maps.Copy(o["spec"].(object), fields)
		return o
	}
	mac := object{"vtep": object{"address": all[1].addresses[0].String(), "mac": "02:00:00:00:00:01"}}
	labelled := changed(nil)
	labelled["metadata"].(object)["labels"] = object{"a": "b"}
	// owners is worker-1's object with one more owner.
	owners := func(uid string) object {
		o := changed(nil)
		m := o["metadata"].(object)
		m["ownerReferences"] = append(m["ownerReferences"].([]any), object{"apiVersion": "v1", "kind": "Node", "name": "worker-2", "uid": uid})
		return o
	}
	orphan := owners("1-2-3")
	orphan["metadata"].(object)["ownerReferences"] = orphan["metadata"].(object)["ownerReferences"].([]any)[1:]
	unknown := changed(nil)
	unknown["metadata"] = object{"name": "worker-9"}
	at := networks + "/worker-1"
	judge(t, []attempt{
		{"own MTU", own, http.MethodPut, at, changed(object{"mtu": 1400}), ""},
		{"own direct routing", own, http.MethodPut, at, changed(object{"direct": []string{all[0].addresses[0].String() + "/24"}}), ""},
		{"half of the ranges", own, http.MethodPut, at, changed(object{"podCIDRs": all[0].podCIDRs[1:]}), ""},
		{"another node's range", own, http.MethodPut, at, changed(object{"podCIDRs": all[1].podCIDRs}), "spec.podCIDRs: the Node has " + all[0].podCIDRs[0].String()},
		{"a range around its own", own, http.MethodPut, at, changed(object{"podCIDRs": []string{"10.244.0.0/16"}}), "spec.podCIDRs"},
		{"two Nodes", own, http.MethodPut, at, owners("1-2-3"), "metadata.ownerReferences"},
		{"another Node's UID", own, http.MethodPut, at, orphan, "metadata.ownerReferences"},
		{"another node's address", own, http.MethodPut, at, changed(mac), "spec.vtep.address"},
		{"another node's direct address", own, http.MethodPut, at, changed(object{"direct": []string{all[1].addresses[0].String() + "/24"}}), "spec.direct"},
		{"a neighbour's token", other, http.MethodPut, at, changed(object{"mtu": 1400}), "node worker-2 may not write the NodeNetwork of worker-1"},
		{"a neighbour's label", other, http.MethodPut, at, labelled, "node worker-2 may not write"},
		{"a node that is not there", own, http.MethodPost, networks, unknown, "node worker-1 may not write the NodeNetwork of worker-9"},
		{"a token without a node", unbound, http.MethodPut, at, changed(object{"mtu": 1400}), "the token has no node claim"},
		{"deletion", own, http.MethodDelete, at, nil, "cannot delete"},
		{"the administrator", admin, http.MethodPut, at, changed(object{"mtu": 1400}), ""},
		{"the administrator's mistake", admin, http.MethodPut, at, changed(object{"podCIDRs": all[1].podCIDRs}), "spec.podCIDRs"},
	})
}

// Of its Node a daemon writes one condition, and of other Nodes nothing.
func TestNodeConditionAlone(t *testing.T) {
	c := shared(t)
	own, other := daemonOf(t, c, "worker-1"), daemonOf(t, c, "worker-2")
	unbound, admin := withToken(t, c), administrator(t, c)
	condition := func(kind string) object {
		return object{"status": object{"conditions": []object{{"type": kind, "status": "False", "reason": "Test"}}}}
	}
	const at = "/api/v1/nodes/worker-1/status"
	patch := func(name string, who actor, body object, want string) attempt {
		return attempt{name, who, http.MethodPatch, at, body, want}
	}
	judge(t, []attempt{
		patch("own condition", own, condition("NetworkUnavailable"), ""),
		patch("own readiness", own, condition("Ready"), "nothing of its Node's status"),
		patch("own condition gone", own, object{"status": object{"conditions": []object{{"type": "Ready", "$patch": "delete"}}}}, "nothing of its Node's status"),
		patch("own address", own, object{"status": object{"addresses": []object{{"type": "InternalIP", "address": "192.0.2.1"}}}}, "nothing of its Node's status"),
		patch("own capacity", own, object{"status": object{"capacity": object{"example.com/x": "1"}}}, "nothing of its Node's status"),
		patch("a field gone", own, object{"status": object{"nodeInfo": nil}}, "nothing of its Node's status"),
		patch("own label", own, object{"metadata": object{"labels": object{"a": "b"}}}, "nothing of its Node but"),
		patch("own annotation", own, object{"metadata": object{"annotations": object{"a": "b"}}}, "nothing of its Node but"),
		patch("a label gone", own, object{"metadata": object{"labels": object{"kubernetes.io/hostname": nil}}}, "nothing of its Node but"),
		patch("a neighbour's token", other, condition("NetworkUnavailable"), "node worker-2 may not write the Node worker-1"),
		patch("a token without a node", unbound, condition("NetworkUnavailable"), "the token has no node claim"),
		patch("the administrator", admin, object{"metadata": object{"labels": object{"a": "b"}}}, ""),
		{"the Node itself", own, http.MethodPatch, "/api/v1/nodes/worker-1", object{"metadata": object{"labels": object{"a": "b"}}}, "cannot patch resource"},
	})
}

// Events are signed with the daemon's node, and others' stay as they are.
func TestEventsAreSigned(t *testing.T) {
	c := shared(t)
	own, other, admin := daemonOf(t, c, "worker-1"), daemonOf(t, c, "worker-2"), administrator(t, c)
	const events = "/api/v1/namespaces/default/events"
	event := func(component, instance string) object {
		return object{
			"apiVersion": "v1", "kind": "Event", "metadata": object{"name": "trust-test"},
			"involvedObject": object{"apiVersion": "v1", "kind": "Node", "name": "worker-1"},
			"reason":         "Test", "message": "a test", "type": "Normal", "reportingComponent": component, "reportingInstance": instance,
		}
	}
	kubelets := event("kubelet", "worker-1")
	kubelets["metadata"] = object{"name": "trust-test-kubelet"}
	foreign := events + "/trust-test-kubelet"
	if err := admin.do(t.Context(), http.MethodPost, events, kubelets); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := admin.do(t.Context(), http.MethodDelete, foreign, nil); err != nil {
			t.Error(err)
		}
	}()
	judge(t, []attempt{
		{"own Event", own, http.MethodPost, events, event("poplind", "worker-1"), ""},
		{"under a neighbour's name", own, http.MethodPost, events, event("poplind", "worker-2"), "must be, and remain"},
		{"a neighbour's token", other, http.MethodPost, events, event("poplind", "worker-1"), "must be, and remain"},
		{"as the kubelet", own, http.MethodPost, events, event("kubelet", "worker-1"), "must be, and remain"},
		{"the kubelet's Event", own, http.MethodPatch, foreign, object{"message": "nothing to see"}, "must be, and remain"},
		{"the administrator", admin, http.MethodPatch, foreign, object{"message": "nothing to see"}, ""},
		{"deletion", own, http.MethodDelete, foreign, nil, "cannot delete"},
	})
}

// As a static pod the daemon does its job with the kubelet's credentials, which
// let it write what is its own node's.
func TestStaticPod(t *testing.T) {
	c := deployed(t)
	const networks = "/apis/poplin.dev/v1alpha1/nodenetworks"
	before := programmed(t, c)
	live.Static(t, c, "worker-2")
	out, err := c.Exec(t.Context(), "worker-2", "curl", "-s", "http://127.0.0.1:9411/readyz")
	if err != nil || !strings.Contains(string(out), "cluster: ok") {
		t.Errorf("readyz: %s, %v", out, err)
	}
	if after := programmed(t, c); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
	kubelet := as(t, c, func(rc *rest.Config) {
		own, err := clientcmd.BuildConfigFromFlags("", c.KubeletKubeconfig("worker-2"))
		if err != nil {
			t.Fatal(err)
		}
		rc.TLSClientConfig = own.TLSClientConfig
	})
	network := func(node string) object {
		o := object{}
		get(t, c, &o, "nodenetwork", node)
		o["spec"].(object)["mtu"] = 1400
		return o
	}
	judge(t, []attempt{
		{"its own", kubelet, http.MethodPut, networks + "/worker-2", network("worker-2"), ""},
		{"a neighbour's", kubelet, http.MethodPut, networks + "/worker-1", network("worker-1"), "node worker-2 may not write the NodeNetwork of worker-1"},
	})
	// Made again, it is the static pod that writes.
	if _, err := c.Kubectl(t.Context(), "delete", "nodenetwork", "worker-2"); err != nil {
		t.Fatal(err)
	}
	await.Success(t, 30*time.Second, func() error {
		_, err := c.Kubectl(t.Context(), "get", "nodenetwork", "worker-2")
		return err
	})
}
