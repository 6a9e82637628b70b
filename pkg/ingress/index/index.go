// Package index keeps which Ingresses use a thing, so that a change of it finds
// them. Inputs are things and the names of Ingresses; it refuses to know what
// the things are.
package index

import "poplin.dev/poplin/pkg/cluster"

// Of is who uses each thing. A thing that nobody uses is not in it.
type Of[K comparable] map[K]map[cluster.ObjectName]bool

// Add says that an Ingress uses a thing.
func (x Of[K]) Add(k K, n cluster.ObjectName) {
	if x[k] == nil {
		x[k] = map[cluster.ObjectName]bool{}
	}
	x[k][n] = true
}

// Remove says that it does not any more.
func (x Of[K]) Remove(k K, n cluster.ObjectName) {
	delete(x[k], n)
	if len(x[k]) == 0 {
		delete(x, k)
	}
}
