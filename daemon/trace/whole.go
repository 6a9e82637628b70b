package trace

import (
	"context"
	"fmt"

	"poplin.dev/poplin/daemon/trace/should"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

// Whole is everything that a node holds of the network, and what it should hold.
// The compiler of Services keeps the numbers that the node has given, so that the
// two can be compared. memory is not nil where the API server is away.
func Whole(ctx context.Context, conf Config, node string) (f facts.Node, d way.Desired, memory *way.Memory, err error) {
	g, done, err := gather(ctx, conf)
	if err != nil {
		return f, d, nil, err
	}
	defer done()
	if _, found := g.in.Objects.Node(node); !found {
		return f, d, nil, fmt.Errorf("there is no node %q", node)
	}
	if f, err = g.node(ctx, node, facts.Question{Kinds: []facts.Kind{facts.OfDaemon, facts.OfNetwork, facts.OfRules}}); err != nil {
		return f, d, nil, fmt.Errorf("ask node %s: %w", node, err)
	}
	return f, should.Hold(g.compiled(ctx), node, f, true), g.in.Memory, nil
}
