package ingress

import (
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/test/ingress/api"
)

type role struct {
	Kind  string
	Rules []struct{ APIGroups, Resources, Verbs []string }
}

// roles are the ClusterRoles of the shipped manifest.
func roles(t *testing.T) []role {
	t.Helper()
	b, err := os.ReadFile("../../install/manifests/poplin-ingress.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var list []role
	for doc := range strings.SplitSeq(string(b), "\n---\n") {
		var r role
		if err := yaml.Unmarshal([]byte(doc), &r); err != nil {
			t.Fatalf("%v in:\n%s", err, doc)
		}
		if r.Kind == "ClusterRole" {
			list = append(list, r)
		}
	}
	return list
}

// asked is the group, resource and verb of a request like "GET /api/v1/pods".
func asked(request string) (group, resource, verb string) {
	method, uri, _ := strings.Cut(request, " ")
	u, _ := url.Parse(uri)
	parts := strings.Split(strings.TrimPrefix(u.Path, "/"), "/")
	if parts[0] == "api" {
		parts = parts[2:]
	} else {
		group, parts = parts[1], parts[3:]
	}
	if parts[0] == "namespaces" && len(parts) > 2 {
		parts = parts[2:]
	}
	resource = parts[0]
	switch {
	case method == "PATCH" && len(parts) > 2:
		return group, resource + "/" + parts[2], "patch"
	case method == "POST":
		return group, resource, "create"
	case u.Query().Get("watch") != "":
		return group, resource, "watch"
	case len(parts) > 1:
		return group, resource, "get"
	}
	return group, resource, "list"
}

// permitted checks every request that a server had against the manifest, and
// the manifest against the requests: no right is missing, and none is spare.
func permitted(t *testing.T, s *api.Server) {
	t.Helper()
	used := map[string]bool{}
	for _, r := range s.Requests("") {
		group, resource, verb := asked(r)
		used[verb+" "+group+"/"+resource] = true
	}
	granted := map[string]bool{}
	for _, r := range roles(t) {
		for _, rule := range r.Rules {
			for _, res := range rule.Resources {
				for _, verb := range rule.Verbs {
					granted[verb+" "+rule.APIGroups[0]+"/"+res] = true
				}
			}
		}
	}
	for u := range used {
		if !granted[u] {
			t.Errorf("the manifest does not grant what is used: %s", u)
		}
	}
	var spare []string
	for g := range granted {
		if !used[g] {
			spare = append(spare, g)
		}
	}
	if slices.Sort(spare); len(spare) > 0 {
		t.Errorf("the manifest grants what is not used: %v", spare)
	}
}
