package policies

import (
	"maps"
	"slices"
	"strings"
)

// mostSets bounds how many sets of labels are remembered. Beyond it, one may be
// kept twice, which is no more than was kept without.
const mostSets = 10_000

// labelSets keeps one copy of what all pods of a ReplicaSet have alike: of what is
// kept of a pod, labels are the half. It belongs to one goroutine.
type labelSets map[string]map[string]string

// one is a set like this one, which nobody may write to.
func (s labelSets) one(labels map[string]string) map[string]string {
	if len(labels) == 0 {
		return nil
	}
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(labels)) {
		// Neither a name nor a value holds these.
		text.WriteString(name + "=" + labels[name] + ",")
	}
	if known, found := s[text.String()]; found {
		return known
	}
	if len(s) >= mostSets {
		clear(s)
	}
	s[text.String()] = labels
	return labels
}
