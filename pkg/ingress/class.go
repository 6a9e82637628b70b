package ingress

import (
	"cmp"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster"
)

// legacyClass is an annotation of an Ingress: its class, as before
// `spec.ingressClassName`. The API asks controllers to go on honouring it.
const legacyClass = "kubernetes.io/ingress.class"

// serves reports whether an Ingress is ours. The legacy annotation wins where
// both are set, as with other controllers. One that names no class is ours if
// the cluster's default class is: it was made before that class.
func (c *Compiler) serves(i *cluster.Ingress) bool {
	name := i.Class
	if legacy, set := i.Annotations[legacyClass]; set {
		name = legacy
	}
	if name == "" {
		name = c.defaultClass()
	}
	class, known := c.classes[name]
	return known && slices.Contains(c.cfg.Controllers, class.Controller)
}

// defaultClass is the class that the API server's admission gives to an
// Ingress without one: of several defaults the newest, then the first by name.
func (c *Compiler) defaultClass() string {
	var best *cluster.IngressClass
	for _, k := range c.classes {
		if k.Default && (best == nil || cmp.Or(best.Created.Compare(k.Created), strings.Compare(k.Name, best.Name)) < 0) {
			best = &k
		}
	}
	if best == nil {
		return ""
	}
	return best.Name
}
