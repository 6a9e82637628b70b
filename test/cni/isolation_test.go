package cni_test

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/plugins/isolation"
	"poplin.dev/poplin/test/answer"
	"poplin.dev/poplin/test/cni"
	"poplin.dev/poplin/test/enforce"
	"poplin.dev/poplin/test/firstpacket"
	"poplin.dev/poplin/test/load"
	"poplin.dev/poplin/test/soak"
)

// asking is a configuration whose ADD asks at socket.
func asking(n *cni.Node, socket string) string {
	return pods(n, "1.1.0", range4+","+range6, fmt.Sprintf(`"policy":{"socket":%q},"stateDir":%q,`, socket, stateDir(n)))
}

// daemonThat listens at a socket and answers with text; never, if it is empty.
func daemonThat(text string) func(*testing.T, string) {
	return func(t *testing.T, socket string) { answer.With(t, socket, text) }
}

// TestAddAsksWhetherPoliciesHold: what ADD makes of an answer, or of none, with
// what a daemon last knew; and DEL asks nobody.
func TestAddAsksWhetherPoliciesHold(t *testing.T) {
	known := func(t *testing.T, n *cni.Node, text string) {
		no(t, os.MkdirAll(stateDir(n), 0o700))
		no(t, os.WriteFile(filepath.Join(stateDir(n), isolation.File), []byte(text), 0o600))
	}
	const (
		free   = `{"version":1,"namespaces":{"default":false,"shop":true}}`
		listed = `{"version":1,"namespaces":{"default":true}}`
		others = `{"version":1,"namespaces":{"shop":false}}`
	)
	for name, row := range map[string]struct {
		daemon  func(*testing.T, string)
		file    string
		refused string // empty: the pod starts
	}{
		"answer: policies hold":        {daemonThat("HTTP/1.0 200 OK\r\n\r\n"), listed, ""},
		"answer: they do not":          {daemonThat("HTTP/1.0 503 x\r\n\r\nno word of pod default/a"), free, "no word of pod default/a"},
		"answer: garbage":              {daemonThat("\x00\xff garbage"), free, "makes no sense"},
		"answer: nothing":              {daemonThat("\r\n\r\n"), free, "makes no sense"},
		"no answer":                    {daemonThat(""), free, "no answer within 2s"},
		"no daemon, free namespace":    {nil, free, ""},
		"no daemon, listed namespace":  {nil, listed, "policies are about pods of namespace default"},
		"no daemon, unknown namespace": {nil, others, "there was no namespace default"},
		"no daemon, no file":           {nil, "", "no such file"},
		"no daemon, spoilt file":       {nil, free[:30], "isolation.json"},
		"no daemon, file of another":   {nil, `{"version":2,"namespaces":{"default":false}}`, "its version is 2"},
	} {
		t.Run(name, func(t *testing.T) {
			n, p := node(t), pod(t)
			socket := filepath.Join(t.TempDir(), "poplind.sock")
			if row.daemon != nil {
				row.daemon(t, socket)
			}
			if row.file != "" {
				known(t, n, row.file)
			}
			conf := asking(n, socket)
			c := call{"ADD", p.ID, p.Path(), "eth0", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=a;K8S_POD_UID=7", conf}
			out, err := c.run(n)
			if row.refused != "" {
				refused(t, out, err, 11, "policies do not hold for the pod yet", row.refused)
				empty(t, n, p)
			} else if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			begun := time.Now()
			c.command = "DEL"
			if out, err := c.run(n); err != nil {
				t.Errorf("DEL: %v\n%s", err, out)
			}
			if took := time.Since(begun); took > isolation.Patience {
				t.Errorf("DEL took %v", took)
			}
			empty(t, n, p)
		})
	}
}

// TestNobodyIsAsked without the key, nor for what is no pod of Kubernetes.
func TestNobodyIsAsked(t *testing.T) {
	n := node(t)
	socket := filepath.Join(t.TempDir(), "poplind.sock")
	daemonThat("HTTP/1.0 503 x\r\n\r\nno")(t, socket)
	no(t, n.Del(list(t, asking(n, socket)), pod(t)))
	p := pod(t)
	add(t, n, list(t, pods(n, "1.1.0", range4, "")), p)
	other := pod(t)
	other.Args = nil
	add(t, n, list(t, asking(n, socket)), other)
	third := pod(t)
	if _, err := n.Add(list(t, asking(n, socket)), third); err == nil {
		t.Error("the daemon that says no is not asked by anybody")
	}
}

func TestBadPolicyKey(t *testing.T) {
	n, p := node(t), pod(t)
	for value, want := range map[string]string{
		`true`:                         "policy: want a JSON object, have true",
		`{}`:                           `policy.socket: "" is relative`,
		`{"socket":"poplind.sock"}`:    `policy.socket: "poplind.sock" is relative`,
		`{"socket":7}`:                 "policy.socket: cannot use 7",
		`{"socket":"/x","enabled":1}`:  "policy.enabled: unknown key",
		`{"Socket":"/run/x/y.socket"}`: "policy.Socket: unknown key",
	} {
		c := call{"ADD", p.ID, p.Path(), "eth0", "", pods(n, "1.1.0", range4, `"policy":`+value+",")}
		out, err := c.run(n)
		refused(t, out, err, 7, want)
		empty(t, n, p)
	}
}

// enforcement is a node with the daemon's module, in whose namespace shop a
// policy lets pods talk with friends only.
type enforcement struct {
	*cni.Node
	objects *enforce.Objects
	daemon  *enforce.Daemon
	config  enforce.Config
	conf    string
}

func enforced(t *testing.T) *enforcement {
	t.Helper()
	n := node(t)
	e := &enforcement{Node: n, objects: enforce.NewObjects(), config: enforce.Config{
		Node: "worker-1", Network: "pods", Dir: n.Dir, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		In: func(do func() error) (err error) {
			if enter := n.Do(func() { err = do() }); enter != nil {
				return enter
			}
			return err
		},
	}}
	for _, name := range []string{"shop", "default"} {
		e.objects.SetNamespace(policy.Namespace{Name: name, Labels: map[string]string{"kubernetes.io/metadata.name": name}})
	}
	friends := policy.Rules{{Peers: []policy.Peer{{
		Namespaces: &policy.Selector{}, Pods: &policy.Selector{{Label: "role", Operator: policy.In, Values: []string{"friend"}}},
	}}}}
	e.objects.SetPolicy(policy.NetworkPolicy{
		Key: policy.Key{Namespace: "shop", Name: "friends"}, Pods: policy.Selector{}, Ingress: &friends, Egress: &friends,
	})
	e.conf = asking(n, e.config.Socket())
	e.start(t)
	t.Cleanup(func() { no(t, e.daemon.Stop()) })
	return e
}

func (e *enforcement) start(t *testing.T) {
	t.Helper()
	var err error
	e.daemon, err = enforce.Start(e.config, e.objects)
	no(t, err)
}

// object is a pod as the API server has it before it runs.
func object(namespace string, p *cni.Pod, role string) policy.Pod {
	return policy.Pod{
		Key: policy.Key{Namespace: namespace, Name: p.ID}, UID: "uid-" + p.ID, Node: "worker-1",
		Labels: map[string]string{"role": role}, Created: time.Now(),
	}
}

func named(t *testing.T, namespace string) *cni.Pod {
	t.Helper()
	p := pod(t)
	p.Args = [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", p.ID}, {"K8S_POD_UID", "uid-" + p.ID}}
	return p
}

func place(p interface{ Do(func()) error }) load.Place {
	return func(do func() error) (err error) {
		if enter := p.Do(func() { err = do() }); enter != nil {
			return enter
		}
		return err
	}
}

// peer is a pod that hears, and may speak.
type peer struct {
	*cni.Pod
	addrs []netip.Addr
	ear   *firstpacket.Ear
}

func (e *enforcement) peer(t *testing.T, role string) peer {
	t.Helper()
	p := named(t, "default")
	o := object("default", p, role)
	e.objects.SetPod(o)
	r := add(t, e.Node, list(t, e.conf), p)
	for _, ip := range r.IPs {
		a, _ := netip.AddrFromSlice(ip.Address.IP)
		o.Addresses = append(o.Addresses, a.Unmap())
	}
	e.objects.SetPod(o)
	ear, err := firstpacket.Listen(t, place(p))
	no(t, err)
	return peer{p, o.Addresses, ear}
}

// TestPodIsIsolatedFromItsFirstPacket: whatever a pod sends, and whatever is
// sent to it, from before it has addresses, what its policy forbids does not
// arrive and what it permits does, whether the API server has told the daemon
// of the pod before ADD or does while it waits, and after the daemon was
// replaced by another that the API server has told of no address.
func TestPodIsIsolatedFromItsFirstPacket(t *testing.T) {
	e := enforced(t)
	friend, stranger := e.peer(t, "friend"), e.peer(t, "stranger")
	var forbidden, permitted int
	for i := range soak.Times(50) {
		p := named(t, "shop")
		next := []netip.Addr{nth("10.244.1.2", 2+i), nth("fd00:10:244:1::2", 2+i)}
		ear, err := firstpacket.Listen(t, place(p))
		no(t, err)
		var voices []*firstpacket.Voice
		speak := func(at interface{ Do(func()) error }, to ...netip.Addr) {
			v, err := firstpacket.Speak(t, place(at), to...)
			no(t, err)
			voices = append(voices, v)
		}
		speak(p, append(friend.addrs, stranger.addrs...)...)
		speak(friend, next...)
		speak(stranger, next...)
		if i%2 == 0 {
			e.objects.SetPod(object("shop", p, ""))
		} else {
			time.AfterFunc(50*time.Millisecond, func() { e.objects.SetPod(object("shop", p, "")) })
		}
		r := add(t, e.Node, list(t, e.conf), p)
		for k, ip := range r.IPs {
			if a, _ := netip.AddrFromSlice(ip.Address.IP); a.Unmap() != next[k] {
				t.Fatalf("pod %d has %s; what was sent to %s does not count", i, a, next[k])
			}
		}
		if i%4 == 3 { // before the pod's status has its addresses
			no(t, e.daemon.Stop())
			e.start(t)
		}
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			heard := true
			for k := range next {
				heard = heard && ear.From(friend.addrs[k]) >= 5 && friend.ear.From(next[k]) >= 5
			}
			if heard {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("pod %d: what is permitted does not arrive", i)
			}
		}
		for _, v := range voices {
			if v.Stop() == 0 {
				t.Errorf("pod %d: nothing was sent", i)
			}
		}
		for k := range next {
			permitted += ear.From(friend.addrs[k]) + friend.ear.From(next[k])
			if in, out := ear.From(stranger.addrs[k]), stranger.ear.From(next[k]); in+out > 0 {
				forbidden += in + out
				t.Errorf("pod %d, %s: %d forbidden datagrams to it, %d from it", i, next[k], in, out)
			}
		}
	}
	t.Logf("%d forbidden datagrams arrived, %d permitted ones", forbidden, permitted)
}

// nth is an address so many behind another.
func nth(first string, n int) netip.Addr {
	a := netip.MustParseAddr(first)
	for range n {
		a = a.Next()
	}
	return a
}

// TestPodOfWhichNobodyHears is refused in a namespace with policies, and not
// kept waiting in another.
func TestPodOfWhichNobodyHears(t *testing.T) {
	e := enforced(t)
	unknown := named(t, "shop")
	begun := time.Now()
	if _, err := e.Add(list(t, e.conf), unknown); err == nil || !strings.Contains(err.Error(), "the API server has not told poplind of it") {
		t.Error(err)
	}
	if took := time.Since(begun); took < isolation.Patience/2 {
		t.Errorf("refused after %v", took)
	}
	if got := state(t, unknown.Link); len(got) > 0 {
		t.Errorf("there is left %v", got)
	}
	// The same one, once it is known.
	e.objects.SetPod(object("shop", unknown, ""))
	add(t, e.Node, list(t, e.conf), unknown)

	quick := named(t, "default")
	begun = time.Now()
	add(t, e.Node, list(t, e.conf), quick)
	if took := time.Since(begun); took > isolation.Patience/2 {
		t.Errorf("a pod of a namespace without policies was kept waiting for %v", took)
	}

	// The next of a name waits for the API server to have it.
	successor := named(t, "shop")
	old := object("shop", successor, "")
	old.UID = "uid-of-its-predecessor"
	e.objects.SetPod(old)
	if _, err := e.Add(list(t, e.conf), successor); err == nil {
		t.Error("a pod started by what is known of its predecessor")
	}
}
