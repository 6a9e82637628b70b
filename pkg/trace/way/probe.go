package way

import "poplin.dev/poplin/pkg/facts"

// Probe is what became of real packets.
type Probe struct {
	// Live says that they were somebody's, and none were sent.
	Live  bool
	Legs  []Leg
	Pages []Page
	// Lookup is what the client asks a name server; nil where it uses no name.
	Lookup *Leg
	// Seen are by node; Absent has, for nodes without, the reason.
	Seen   map[string]facts.Watched
	Absent map[string]string
}

// Leg is one request on one case.
type Leg struct {
	// Case is the place in the list of cases.
	Case   int
	Sender string
	facts.Request
}

// Page is a URL, asked for at one replica of the Ingress controller.
type Page struct {
	Node, Replica string
	facts.Request
}

// Step is a place at which a real packet was seen, or should have been.
type Step struct {
	Node string `json:"node"`
	// Where is such as "forwarded" or "left the overlay".
	Where string `json:"where"`
	Seen  bool   `json:"seen"`
}

// Witness is what is reported of one request.
type Witness struct {
	From     string `json:"from"`
	To       string `json:"to"`
	Endpoint string `json:"endpoint,omitempty"`
	// Result is answered, refused, lost or unknown.
	Result string `json:"result"`
	Why    string `json:"why,omitempty"`
	Steps  []Step `json:"steps,omitempty"`
}

// Same reports whether two are about the same request.
func (w Witness) Same(o Witness) bool {
	return w.From == o.From && w.To == o.To && w.Endpoint == o.Endpoint
}
