package trace

import (
	"context"
	"fmt"
	"sync"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/trace/way"
)

// Whole is everything that a node holds of the network, and what it should hold.
// The compiler of Services keeps the numbers that the node has given, so that the
// two can be compared.
func Whole(ctx context.Context, conf Config, node string) (f facts.Node, d way.Desired, err error) {
	g, err := newGatherer(conf)
	if err != nil {
		return f, d, err
	}
	g.keepNumbers = true
	ctx, stop := context.WithCancel(ctx)
	var views sync.WaitGroup
	defer views.Wait()
	defer stop()
	if err := g.follow(ctx, &views); err != nil {
		return f, d, err
	}
	if err := g.cluster(ctx); err != nil {
		return f, d, err
	}
	if _, found := g.in.Objects.Node(node); !found {
		return f, d, fmt.Errorf("there is no node %q", node)
	}
	if f, err = g.node(ctx, node, facts.Question{Kinds: []facts.Kind{facts.OfDaemon, facts.OfNetwork, facts.OfRules}}); err != nil {
		return f, d, fmt.Errorf("ask node %s: %w", node, err)
	}
	g.in.Facts[node] = f
	return f, g.desired(ctx, node), nil
}
