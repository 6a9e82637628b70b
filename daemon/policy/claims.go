package policy

import (
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/claims"
)

// Claim takes over addresses that a pod of this node was just given. The
// channel is closed once the kernel holds what policies say of the pod, which
// the API server must have told of.
func (m *Module) Claim(c claims.Claim) <-chan struct{} {
	done := make(chan struct{})
	c.At, c.InForce = time.Now(), func() { close(done) }
	m.mu.Lock()
	changed := m.claims.Enter(c)
	m.mu.Unlock()
	keys := make([]key, len(changed))
	for i, k := range changed {
		keys[i] = key{pods, k}
	}
	m.queue.Hurry(keys...) // a pod's start waits
	return done
}

// pod is one with what it claims.
func (p *pass) pod(k policy.Key) (o policy.Pod, found bool) {
	o, found = p.deps.Source.Pod(k)
	p.mu.Lock()
	defer p.mu.Unlock()
	if found {
		return p.claims.Of(o), true
	}
	p.claims.Gone(k)
	return o, false
}

// inForce says that the kernel holds what the table says, and so of pods that no
// policy which waits is about.
func (p *pass) inForce() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.claims.InForce(func(namespace string) bool {
		for _, c := range p.waits {
			if p.table.About(c, namespace) {
				return false
			}
		}
		return p.known[namespaces][policy.Key{Name: namespace}]
	})
}
