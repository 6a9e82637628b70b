package daemon

import (
	"sync"
	"time"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/kube"
)

// contact knows since when the API server is away: since every list and watch
// fails. It is an Observer, and passes on what it hears.
type contact struct {
	kube.Observer

	mu sync.Mutex
	// lost has, by resource, since when requests for it fail; zero where the
	// latest did not.
	lost    map[string]time.Time
	problem error
}

func newContact(next kube.Observer) *contact {
	return &contact{Observer: next, lost: map[string]time.Time{}}
}

// Requested implements kube.Observer.
func (c *contact) Requested(resource string, err error) {
	c.mu.Lock()
	switch {
	case err == nil:
		c.lost[resource] = time.Time{}
	case c.lost[resource].IsZero():
		c.lost[resource], c.problem = time.Now().UTC(), err
	}
	c.mu.Unlock()
	c.Observer.Requested(resource, err)
}

// since is when the last of the resources was lost; zero while one is not.
func (c *contact) since() (last time.Time, problem error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, at := range c.lost {
		if at.IsZero() {
			return time.Time{}, nil
		}
		if at.After(last) {
			last = at
		}
	}
	return last, c.problem
}

// objects are what is known of the API's, complete or not.
func (s *state) objects() facts.Cluster {
	var c facts.Cluster
	var problem error
	if c.Since, problem = s.contact.since(); problem != nil {
		c.Problem = problem.Error()
	}
	if saved := s.known.Stale(); !saved.IsZero() {
		c.Since = saved
	}
	var complete bool
	if c.Self, _ = s.known.Self(); c.Self.Name == "" {
		c.Lacks("nodes", s.cluster.Waiting())
	}
	if c.Nodes, complete = s.known.Nodes(); !complete {
		c.Lacks("nodes", s.cluster.Waiting())
	}
	switch {
	case s.vips == nil:
		c.Lacks("services", "another program serves Services")
	case !s.vips.view.Complete():
		c.Lacks("services", s.vips.view.Waiting())
	default:
		c.Services, c.Ranges = s.vips.view.Services(), s.vips.view.Ranges()
		for _, x := range c.Services {
			c.Slices = append(c.Slices, s.vips.view.Slices(x.Key)...)
		}
	}
	switch {
	case s.verdicts == nil:
		c.Lacks("policy", "policies are another program's")
	case !s.verdicts.view.Complete():
		c.Lacks("policy", s.verdicts.view.Waiting())
	default:
		c.Policy = s.verdicts.view.Objects()
	}
	return c
}
