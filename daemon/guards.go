package daemon

import (
	"log/slog"

	"poplin.dev/poplin/pkg/overlay"
)

// counters is where an nftables table says what it dropped.
type counters interface {
	Counters() (map[string]uint64, error)
}

// reasons are the guards' counters as metrics call them.
var reasons = map[string]string{
	overlay.Spoofed: "spoofed_source",
	overlay.Router:  "router_message",
	overlay.Forged:  "forged_overlay",
}

// guardDrops reads what the guards dropped, by reason, when it is asked for.
func guardDrops(table counters, log *slog.Logger) func() map[string]uint64 {
	return func() map[string]uint64 {
		list, err := table.Counters()
		if err != nil {
			log.Debug("cannot read the guards' counters", "error", err)
		}
		drops := map[string]uint64{}
		for name, reason := range reasons {
			if n, ok := list[name]; ok {
				drops[reason] = n
			}
		}
		return drops
	}
}
