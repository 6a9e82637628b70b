package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/apply/sandbox"
	"poplin.dev/poplin/plugins/hostlocal/audit"
	"poplin.dev/poplin/plugins/poplin/apply"
	"poplin.dev/poplin/plugins/poplin/plan"
)

// Inspect reports on the network of a conflist, on the node whose files and
// network namespace the caller sees.
func Inspect(conflist, cache string) (audit.Report, error) {
	text, err := os.ReadFile(conflist)
	if err != nil {
		return audit.Report{}, fmt.Errorf("find the node's ranges (is this a node, or its poplind pod?): %w", err)
	}
	network, err := files.Conflist(text)
	if err != nil {
		return audit.Report{}, err
	}
	facts := audit.Facts{Network: network.Name, Sets: network.Sets, LinkOf: plan.HostName}
	known, err := sandbox.Read(cache)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return audit.Report{}, err
	}
	facts.Sure = err == nil
	for _, a := range known.Attachments {
		facts.Attachments = append(facts.Attachments, audit.Attachment{ContainerID: a.ContainerID, IfName: a.IfName, Pod: a.Pod})
	}
	links, err := apply.Links(network.Name)
	if err != nil {
		return audit.Report{}, err
	}
	for _, l := range links {
		facts.Links = append(facts.Links, audit.Link(l))
	}
	if facts.Files, err = network.Store.Survey(); err != nil {
		return audit.Report{}, fmt.Errorf("list reservations: %w", err)
	}
	return audit.Run(facts), nil
}

// Check inspects once more after a while if there are problems, and reports
// those that are still there: a pod that comes or goes looks like one.
func Check(conflist, cache string, again time.Duration) (audit.Report, error) {
	first, err := Inspect(conflist, cache)
	if err != nil || len(first.Problems) == 0 {
		return first, err
	}
	time.Sleep(again)
	second, err := Inspect(conflist, cache)
	second.Problems = slices.DeleteFunc(second.Problems, func(p audit.Problem) bool { return !slices.Contains(first.Problems, p) })
	return second, err
}
