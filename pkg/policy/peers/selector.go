package peers

import (
	"fmt"
	"slices"
	"strings"

	"poplin.dev/poplin/pkg/cluster/policy"
)

// Valid reports whether a requirement is one. Others are refused by the API
// server, today's at least.
func Valid(r policy.Requirement) bool {
	switch r.Operator {
	case policy.In, policy.NotIn:
		return len(r.Values) > 0
	case policy.Exists, policy.DoesNotExist:
		return len(r.Values) == 0
	}
	return false
}

// Matches reports whether all requirements hold. As the API has it, NotIn and
// DoesNotExist hold for a label that is not there. What is no requirement
// holds for nobody.
func Matches(s policy.Selector, labels map[string]string) bool {
	for _, r := range s {
		if !Valid(r) {
			return false
		}
		value, found := labels[r.Label]
		ok := false
		switch r.Operator {
		case policy.In:
			ok = found && slices.Contains(r.Values, value)
		case policy.NotIn:
			ok = !found || !slices.Contains(r.Values, value)
		case policy.Exists:
			ok = found
		case policy.DoesNotExist:
			ok = !found
		}
		if !ok {
			return false
		}
	}
	return true
}

// canonical is the same text for selectors that say the same in another order.
func canonical(s policy.Selector) string {
	parts := make([]string, len(s))
	for i, r := range s {
		values := slices.Sorted(slices.Values(r.Values))
		parts[i] = fmt.Sprintf("%q %s %q", r.Label, r.Operator, slices.Compact(values))
	}
	slices.Sort(parts)
	return strings.Join(slices.Compact(parts), ",")
}
