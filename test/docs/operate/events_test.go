package operate

import (
	"strings"
	"testing"

	"poplin.dev/poplin/pkg/cluster/reason"
)

// events are the reasons that a program gives.
func events(list func() []reason.Reason) func(*testing.T) string {
	return func(*testing.T) string {
		var lines [][]string
		for _, r := range list() {
			e := r.Entry()
			lines = append(lines, []string{strings.Join(e.On, ", "), "`" + e.Name + "`", r.Type(), e.Means, e.Cure})
		}
		return rows([]string{"on", "reason", "type", "meaning", "cure"}, lines)
	}
}
