package reach

import (
	"fmt"
	"strings"
)

// String is the answer for people.
func (a Answer) String() string {
	var b strings.Builder
	verdict := map[bool]string{false: "denied", true: "allowed"}
	fmt.Fprintf(&b, "%s to %s, port %d/%s: %s\n", a.From, a.To, a.Port, a.Protocol, verdict[a.Allowed])
	for _, f := range a.Flows {
		fmt.Fprintf(&b, "  %s to %s: %s\n", f.Source, f.Destination, verdict[f.Allowed])
		if f.Note != "" {
			fmt.Fprintf(&b, "    %s\n", f.Note)
		}
		for _, d := range f.Decisions {
			fmt.Fprintf(&b, "    %s\n", d)
		}
	}
	return b.String()
}
