package status

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/pkg/facts"
)

// Report is what a daemon says of itself and its node.
type Report struct {
	Node    string    `json:"node"`
	Version string    `json:"version"`
	Commit  string    `json:"commit"`
	Started time.Time `json:"started"`
	// Ready says that pods may start on this node.
	Ready bool   `json:"ready"`
	Tasks []Task `json:"tasks"`
	// APIServer is the endpoint in use.
	APIServer string `json:"apiServer,omitempty"`

	PodCIDRs  []netip.Prefix `json:"podCIDRs,omitempty"`
	Addresses []netip.Addr   `json:"addresses,omitempty"`
	Underlay  *Underlay      `json:"underlay,omitempty"`
	MTU       int            `json:"mtu,omitempty"`
	// Mode is the overlay's; Checksums says who fills in those of
	// encapsulated packets.
	Mode      string `json:"mode"`
	Checksums string `json:"checksums,omitempty"`
	// Peers counts the other nodes that are programmed; Refused are those
	// that are not, and Silent those that did not answer a packet through the
	// pod network when they were last asked.
	Peers   int       `json:"peers"`
	Refused []Refusal `json:"refused,omitempty"`
	Silent  []string  `json:"silent,omitempty"`
	// Services is nil where others serve them.
	Services *Services `json:"services,omitempty"`

	Conflist string `json:"conflist,omitempty"`
	// Preferred are the files that the container runtime takes instead.
	Preferred []string `json:"preferredConflists,omitempty"`
	// Pending are configuration keys that wait for a restart.
	Pending []string `json:"configPending,omitempty"`
	// ConfigError is why the configuration file is not used as it stands.
	ConfigError string   `json:"configError,omitempty"`
	Listeners   []string `json:"listeners"`
	// Capabilities are what the daemon has of root's rights.
	Capabilities []string `json:"capabilities"`
}

// Task is one part of the daemon, and what it waits for; empty when it does
// its job.
type Task struct {
	Name    string `json:"name"`
	Waiting string `json:"waiting,omitempty"`
}

// Underlay is the device that carries the overlay.
type Underlay struct {
	Link string     `json:"link"`
	Addr netip.Addr `json:"addr"`
	MTU  int        `json:"mtu"`
}

// Services is what is true of them on this node.
type Services struct {
	// Count is how many the cluster has, Elements what the kernel holds for
	// them.
	Count    int `json:"count"`
	Elements int `json:"elements"`
	// Findings counts mistakes in Services, Problems settings of the node
	// that could not be made.
	Findings int `json:"findings"`
	Problems int `json:"problems"`
}

// Refusal is a node that is not programmed.
type Refusal struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Read asks the daemon of this node.
func Read(ctx context.Context, socket string) (r Report, err error) {
	err = fetch(ctx, socket, "/status", &r)
	return r, err
}

// Cluster asks the daemon of this node what it knows of the API's objects.
func Cluster(ctx context.Context, socket string) (c facts.Cluster, err error) {
	err = fetch(ctx, socket, "/cluster", &c)
	return c, err
}

// Config asks the daemon of this node for the text of its configuration file.
func Config(ctx context.Context, socket string) (text string, err error) {
	err = fetch(ctx, socket, "/config", &text)
	return text, err
}

func fetch(ctx context.Context, socket, what string, answer any) error {
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}}
	defer client.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://poplind"+what, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("ask the daemon of this node (is poplind running, and are you root?): %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("ask the daemon of this node: it answers %s", resp.Status)
	}
	if err := json.NewDecoder(resp.Body).Decode(answer); err != nil {
		return fmt.Errorf("read the daemon's answer: %w", err)
	}
	return nil
}

// Text is the report for people.
func (r Report) Text(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	line := func(name, format string, args ...any) {
		fmt.Fprintf(t, "%s:\t%s\n", name, fmt.Sprintf(format, args...))
	}
	line("Node", "%s", r.Node)
	line("Version", "%s (commit %s), running since %s", r.Version, r.Commit, r.Started.Format(time.RFC3339))
	line("Ready", "%v", r.Ready)
	line("API server", "%s", orNone(r.APIServer))
	line("Pod ranges", "%s", orNone(join(r.PodCIDRs)))
	line("Node addresses", "%s", orNone(join(r.Addresses)))
	if u := r.Underlay; u != nil {
		line("Underlay", "%s, %s, MTU %d", u.Link, u.Addr, u.MTU)
	}
	line("Mode", "%s", r.Mode)
	if r.Checksums != "" {
		line("Checksums", "%s", r.Checksums)
	}
	line("Pod MTU", "%d", r.MTU)
	line("Peers", "%d", r.Peers)
	if len(r.Silent) > 0 {
		line("Silent", "%s: no answer through the pod network", strings.Join(r.Silent, ", "))
	}
	for _, p := range r.Refused {
		line("Refused", "%s: %s", p.Node, p.Reason)
	}
	if s := r.Services; s != nil {
		line("Services", "%d, %d elements in the kernel, %d findings, %d problems", s.Count, s.Elements, s.Findings, s.Problems)
	}
	line("Conflist", "%s", orNone(r.Conflist))
	if len(r.Preferred) > 0 {
		line("Runtime prefers", "%s: unless that delegates to Poplin, remove it", strings.Join(r.Preferred, ", "))
	}
	line("Capabilities", "%s", orNone(strings.Join(r.Capabilities, ", ")))
	line("Listeners", "%s", strings.Join(r.Listeners, ", "))
	if r.ConfigError != "" {
		line("Configuration", "%s", strings.ReplaceAll(r.ConfigError, "\n", "; "))
	}
	if len(r.Pending) > 0 {
		line("After a restart", "%s", strings.Join(r.Pending, ", "))
	}
	for _, task := range r.Tasks {
		line("Task "+task.Name, "%s", task.text())
	}
	return t.Flush()
}

func (t Task) text() string {
	if t.Waiting == "" {
		return "ok"
	}
	return "waiting: " + t.Waiting
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func join[T fmt.Stringer](list []T) string {
	texts := make([]string, len(list))
	for i, v := range list {
		texts[i] = v.String()
	}
	return strings.Join(texts, ", ")
}
