package pods

import (
	"fmt"
	"log/slog"
	"slices"

	"poplin.dev/poplin/pkg/cluster/policy"
	"poplin.dev/poplin/test/enforce"
)

// waiting is the variant whose pods wait until the kernel isolates them.
const waiting = "poplin, isolated"

// namespace is that of its pods.
const namespace = "bench"

func podName(i int) string { return fmt.Sprintf("pod-%d", i) }

func podArgs(i int) [][2]string {
	return [][2]string{{"IgnoreUnknown", "1"}, {"K8S_POD_NAMESPACE", namespace}, {"K8S_POD_NAME", podName(i)}, {"K8S_POD_UID", podName(i)}}
}

func enforcing(dir string) enforce.Config {
	return enforce.Config{Node: "bench", Network: "pods", Dir: dir, Log: slog.New(slog.DiscardHandler)}
}

// isolate starts the part of the daemon that enforces policies, in this process,
// with every pod of the run known and none permitted anything, so that each ADD
// waits for a change of the kernel's.
func isolate(variants []*variant, o Options) (*enforce.Daemon, error) {
	n := variants[slices.IndexFunc(variants, func(v *variant) bool { return v.name == waiting })].node
	objects := enforce.NewObjects()
	objects.SetNamespace(policy.Namespace{Name: namespace})
	objects.SetPolicy(policy.NetworkPolicy{
		Key: policy.Key{Namespace: namespace, Name: "nobody"}, Pods: policy.Selector{}, Ingress: &policy.Rules{}, Egress: &policy.Rules{},
	})
	for i := range most(o) {
		objects.SetPod(policy.Pod{Key: policy.Key{Namespace: namespace, Name: podName(i)}, UID: podName(i), Node: "bench"})
	}
	c := enforcing(n.Dir)
	c.In = func(do func() error) (err error) {
		if enter := n.Do(func() { err = do() }); enter != nil {
			return enter
		}
		return err
	}
	return enforce.Start(c, objects)
}

// most is at least how many pods a variant makes: of all modes the turns that
// count, with one that is begun, and the one before them; and those that stay.
func most(o Options) (n int) {
	for _, present := range presence {
		n += present
		for _, m := range o.modes(present) {
			n += m.pods + 2*m.atOnce
		}
	}
	return n
}
