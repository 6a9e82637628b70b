package claims

import (
	"net/netip"
	"slices"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
)

func addrs(list ...string) (all []netip.Addr) {
	for _, s := range list {
		all = append(all, netip.MustParseAddr(s))
	}
	return all
}

func key(name string) policy.Key { return policy.Key{Namespace: "shop", Name: name} }

// pod is one of this node as the API server has it.
func pod(name, uid string, status ...string) policy.Pod {
	return policy.Pod{Key: key(name), UID: uid, Node: "worker-1", Created: time.Unix(1, 0), Addresses: addrs(status...)}
}

// step is one thing that happens; want is what the pod then has.
type step struct {
	claim   *Claim
	seen    *policy.Pod
	gone    string
	kernel  bool // it holds everything
	want    []netip.Addr
	changed []string
	inForce int // of all claims so far
}

func claim(name, uid, sandbox string, list ...string) *Claim {
	return &Claim{Pod: key(name), UID: uid, Sandbox: sandbox, Addresses: addrs(list...), At: time.Unix(2, 0)}
}

func seen(p policy.Pod) *policy.Pod { return &p }

func TestClaims(t *testing.T) {
	const a, b, c = "10.244.1.2", "10.244.1.3", "fd00::2"
	elsewhere := pod("web", "7")
	elsewhere.Node = ""
	for name, steps := range map[string][]step{
		"pod known before its address": {
			{seen: seen(pod("web", "7"))},
			{claim: claim("web", "7", "s1", a, c), changed: []string{"web"}},
			{seen: seen(pod("web", "7")), want: addrs(a, c)},
			{kernel: true, inForce: 1},
			{kernel: true, inForce: 1}, // once
		},
		"address known before the pod": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{gone: "web"},
			{kernel: true},
			{seen: seen(pod("web", "7")), want: addrs(a)},
			{kernel: true, inForce: 1},
		},
		"the status has it, and is late again": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7", a)), want: addrs(a)},
			{seen: seen(pod("web", "7")), want: addrs(a)},
		},
		"not bound to the node yet": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{seen: &elsewhere},
			{kernel: true},
			{seen: seen(pod("web", "7")), want: addrs(a)},
			{kernel: true, inForce: 1},
		},
		"its predecessor of the same name is still seen": {
			{claim: claim("web", "8", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7", b)), want: addrs(b)},
			{kernel: true},
			{gone: "web"},
			{seen: seen(pod("web", "8")), want: addrs(a)},
			{kernel: true, inForce: 1},
		},
		"its successor is seen": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7")), want: addrs(a)},
			{seen: seen(pod("web", "8"))},
			{seen: seen(pod("web", "7"))}, // for good
		},
		"the pod is gone": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7")), want: addrs(a)},
			{gone: "web"},
			{seen: seen(pod("web", "7"))},
		},
		"nobody says which pod of the name": {
			{claim: claim("web", "", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7")), want: addrs(a)},
			{kernel: true, inForce: 1},
		},
		"another sandbox": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{seen: seen(pod("web", "7", a)), want: addrs(a)},
			{kernel: true, inForce: 1},
			{claim: claim("web", "7", "s2", b), changed: []string{"web"}},
			{seen: seen(pod("web", "7", a)), want: addrs(a, b)}, // what is too much does no harm
			{seen: seen(pod("web", "7", b)), want: addrs(b)},
			{kernel: true, inForce: 2},
		},
		"a second interface": {
			{claim: claim("web", "7", "s1", a), changed: []string{"web"}},
			{claim: claim("web", "7", "s1", b), changed: []string{"web"}},
			{seen: seen(pod("web", "7", a)), want: addrs(a, b)},
			{kernel: true, inForce: 2},
		},
		"the address is another's now": {
			{claim: claim("web", "7", "s1", a, c), changed: []string{"web"}},
			{seen: seen(pod("web", "7")), want: addrs(a, c)},
			{claim: claim("api", "9", "s2", a), changed: []string{"api", "web"}},
			{seen: seen(pod("web", "7")), want: addrs(c)},
			{seen: seen(pod("api", "9")), want: addrs(a)},
			{claim: claim("api", "9", "s2", c), changed: []string{"api", "web"}},
			{seen: seen(pod("web", "7"))},
		},
		"the namespace is not known yet": {
			{claim: &Claim{Pod: policy.Key{Namespace: "new", Name: "web"}, Addresses: addrs(a), At: time.Unix(2, 0)}},
			{seen: &policy.Pod{Key: policy.Key{Namespace: "new", Name: "web"}, Node: "worker-1"}, want: addrs(a)},
			{kernel: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, told := NewList("worker-1"), 0
			for i, s := range steps {
				switch {
				case s.claim != nil:
					s.claim.InForce = func() { told++ }
					changed := l.Enter(*s.claim)
					for _, name := range s.changed {
						if !slices.Contains(changed, key(name)) {
							t.Errorf("step %d: changed %v, want %v", i, changed, s.changed)
						}
					}
				case s.seen != nil:
					got := l.Of(*s.seen)
					if !slices.Equal(got.Addresses, s.want) {
						t.Errorf("step %d: has %v, want %v", i, got.Addresses, s.want)
					}
					if len(got.Addresses) > len(s.seen.Addresses) && !got.Created.Equal(time.Unix(2, 0)) {
						t.Errorf("step %d: of two pods with the address, the older one would have it", i)
					}
				case s.gone != "":
					l.Gone(key(s.gone))
				case s.kernel:
					l.InForce(func(namespace string) bool { return namespace == "shop" })
				}
				if s.kernel && told != s.inForce {
					t.Errorf("step %d: %d claims in force, want %d", i, told, s.inForce)
				}
			}
		})
	}
}

// A claim does not reach into what the caller keeps.
func TestNothingIsShared(t *testing.T) {
	l := NewList("worker-1")
	l.Enter(*claim("web", "7", "s1", "10.244.1.2"))
	status := make([]netip.Addr, 1, 4)
	status[0] = netip.MustParseAddr("10.244.1.9")
	p := pod("web", "7")
	p.Addresses = status
	l.Of(p)
	if got := status[:2][1]; got.IsValid() {
		t.Errorf("%s was written behind the pod's addresses", got)
	}
}
