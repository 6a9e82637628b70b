package monitoring

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

const (
	alerts    = "../../install/monitoring/alerts.yaml"
	dashboard = "../../install/monitoring/dashboard.json"
)

func read(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func daemon(t *testing.T) []Metric {
	t.Helper()
	known, err := Daemon()
	if err != nil {
		t.Fatal(err)
	}
	return known
}

func TestAlerts(t *testing.T) {
	var file struct {
		Groups []struct {
			Name  string `json:"name"`
			Rules []struct {
				Alert       string            `json:"alert"`
				Expr        string            `json:"expr"`
				For         string            `json:"for"`
				Labels      map[string]string `json:"labels"`
				Annotations map[string]string `json:"annotations"`
			} `json:"rules"`
		} `json:"groups"`
	}
	if err := yaml.UnmarshalStrict([]byte(read(t, alerts)), &file); err != nil {
		t.Fatal(err)
	}
	known, seen := daemon(t), map[string]bool{}
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			if !regexp.MustCompile(`^Poplin[A-Z]\w+$`).MatchString(r.Alert) || seen[r.Alert] {
				t.Errorf("%q is no name, or one of two", r.Alert)
			}
			seen[r.Alert] = true
			for _, wrong := range mistakes(known, r.Expr) {
				t.Errorf("%s: %s", r.Alert, wrong)
			}
			if d, err := time.ParseDuration(r.For); err != nil || d < time.Minute {
				t.Errorf("%s: for %q: an alert waits at least a minute, %v", r.Alert, r.For, err)
			}
			if s := r.Labels["severity"]; s != "info" && s != "warning" && s != "critical" {
				t.Errorf("%s: severity %q", r.Alert, s)
			}
			for _, a := range []string{"summary", "runbook"} {
				if len(r.Annotations[a]) < 20 {
					t.Errorf("%s: annotation %s says nothing: %q", r.Alert, a, r.Annotations[a])
				}
			}
		}
	}
	if len(seen) < 10 {
		t.Errorf("%d alerts", len(seen))
	}
}

func TestDashboard(t *testing.T) {
	var board struct {
		Title  string
		Panels []struct {
			ID          int
			Title, Type string
			GridPos     struct{ X, Y, W, H int }
			Targets     []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, dashboard)), &board); err != nil {
		t.Fatal(err)
	}
	known, ids, places := daemon(t), map[int]bool{}, map[[2]int]bool{}
	for _, p := range board.Panels {
		place := [2]int{p.GridPos.X, p.GridPos.Y}
		if ids[p.ID] || places[place] || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s: lies on another panel, or has its number", p.Title)
		}
		ids[p.ID], places[place] = true, true
		if p.Type != "row" && len(p.Targets) == 0 {
			t.Errorf("%s: shows nothing", p.Title)
		}
		for _, target := range p.Targets {
			for _, wrong := range mistakes(known, target.Expr) {
				t.Errorf("%s: %s", p.Title, wrong)
			}
		}
	}
	if len(board.Panels) < 10 {
		t.Errorf("%d panels", len(board.Panels))
	}
}

func TestMistakes(t *testing.T) {
	known := []Metric{{Name: "poplin_a", Labels: []string{"task"}}, {Name: "poplin_b_seconds"}}
	for expr, want := range map[string]string{
		`poplin_a{task="x"} > 0`: "",
		`histogram_quantile(0.9, sum by (le) (rate(poplin_b_seconds_bucket[5m])))`: "",
		`poplin_c > 0`:                         "poplin_c is not exported",
		`poplin_a{part="x"} > 0`:               "poplin_a has no label part",
		`sum by (part) (poplin_a)`:             "no metric in it has a label part",
		`sum((poplin_a)`:                       "brackets",
		`sum by (instance) (poplin_a{x="})"})`: "poplin_a has no label x",
		`up == 0`:                              "",
	} {
		if got := strings.Join(mistakes(known, expr), "; "); (got == "") != (want == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", expr, got, want)
		}
	}
}
