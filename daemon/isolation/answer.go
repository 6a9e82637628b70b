package isolation

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"time"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/pkg/policy/claims"
	"poplin.dev/poplin/plugins/isolation"
)

const (
	// patience is how long a pod is waited for. The plugin has a little more,
	// so that it hears why.
	patience = isolation.Patience - 200*time.Millisecond
	// maxQuestion is more than a question has.
	maxQuestion = 16 << 10
)

// ServeHTTP answers a question: 200 lets the pod send.
func (m *Module) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxQuestion))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	q, err := isolation.ParseQuestion(text)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	pod := policy.Key{Namespace: q.Namespace, Name: q.Name}
	holds := m.deps.Claim(claims.Claim{Pod: pod, UID: q.UID, Sandbox: q.Sandbox, Addresses: q.Addresses})
	if m.free(q.Namespace) {
		return
	}
	select {
	case <-holds:
	case <-r.Context().Done(): // nobody hears it, but it shall not be a yes
		http.Error(w, "the daemon ends", http.StatusServiceUnavailable)
	case <-time.After(patience):
		why := cmp.Or(m.deps.Waiting(), "the API server has not told poplind of it")
		http.Error(w, fmt.Sprintf("policies do not hold for pod %s yet: %s", pod, why), http.StatusServiceUnavailable)
	}
}

func (m *Module) free(namespace string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.namespaces.Free(namespace)
}
