// Package bandwidth says how fast a pod may send and receive. Input is the
// runtime's bandwidth; output is Limits. It refuses numbers that no token
// bucket can have. It does not touch the kernel.
package bandwidth

import (
	"encoding/json"
	"fmt"
	"math"

	"poplin.dev/poplin/plugins/strict"
)

// Limits are a pod's. Ingress is what it receives.
type Limits struct{ Ingress, Egress Rate }

// Rate is in bytes; the zero Rate is no limit.
type Rate struct {
	// PerSecond is what passes in the long run, Burst what passes at once
	// after a pause.
	PerSecond, Burst uint64
}

const (
	// leastBurst is what the largest packet that the kernel handles as one
	// takes, so that it need not be cut.
	leastBurst = 64 << 10
	// burstParts of a second pass at once where nobody says how much.
	burstParts = 20
	// mostBurst is all the bits that runtimes can say. containerd always says
	// so, because Kubernetes' annotation has no burst; taken by its word, half
	// a gigabyte would pass before the limit begins.
	mostBurst = math.MaxUint32 / 8
	// mostRate is Kubernetes' own limit for the annotation, 1 Pbit/s.
	mostRate = 1_000_000_000_000_000
)

// Parse reads runtimeConfig.bandwidth.
func Parse(raw json.RawMessage) (Limits, error) {
	const key = "runtimeConfig.bandwidth"
	if len(raw) == 0 {
		return Limits{}, nil
	}
	var bits struct{ ingressRate, ingressBurst, egressRate, egressBurst uint64 }
	err := strict.Object(raw, key, strict.Fields{
		"ingressRate": &bits.ingressRate, "ingressBurst": &bits.ingressBurst,
		"egressRate": &bits.egressRate, "egressBurst": &bits.egressBurst,
		// As containerd writes them.
		"IngressRate": &bits.ingressRate, "IngressBurst": &bits.ingressBurst,
		"EgressRate": &bits.egressRate, "EgressBurst": &bits.egressBurst,
	})
	if err != nil {
		return Limits{}, err
	}
	var l Limits
	for _, side := range []struct {
		name        string
		rate, burst uint64
		to          *Rate
	}{{"ingress", bits.ingressRate, bits.ingressBurst, &l.Ingress}, {"egress", bits.egressRate, bits.egressBurst, &l.Egress}} {
		switch {
		case side.rate == 0 && side.burst != 0:
			return Limits{}, fmt.Errorf("%s.%sBurst: %d bits without %sRate; give both, or neither", key, side.name, side.burst, side.name)
		case side.rate != 0 && (side.rate < 8 || side.rate > mostRate):
			return Limits{}, fmt.Errorf("%s.%sRate: %d bits per second are outside 8..%d", key, side.name, side.rate, uint64(mostRate))
		}
		*side.to = rate(side.rate/8, side.burst/8)
	}
	return l, nil
}

func rate(perSecond, burst uint64) Rate {
	if perSecond == 0 {
		return Rate{}
	}
	if burst == 0 || burst >= mostBurst {
		burst = min(max(perSecond/burstParts, leastBurst), mostBurst)
	}
	return Rate{perSecond, burst}
}
