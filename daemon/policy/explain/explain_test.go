package explain_test

import (
	"encoding/json"
	"strings"
	"testing"

	"poplin.dev/poplin/daemon/policy/explain"
)

const manifests = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: sales}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec:
  replicas: 3
  template:
    metadata: {labels: {app: web}}
---
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Pod
  metadata: {name: db, namespace: bank, labels: {app: db}}
  spec:
    containers: [{name: db, ports: [{name: sql, containerPort: 5432}]}]
- apiVersion: v1
  kind: Pod
  metadata: {name: db-outside, namespace: bank}
  status: {podIPs: [{ip: 10.244.9.9}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody-asks}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: bank}
spec:
  podSelector: {matchLabels: {app: db}}
  ingress:
  - from: [{ipBlock: {cidr: 10.244.9.0/24}}]
  - from: [{namespaceSelector: {matchLabels: {team: sales}}}]
    ports: [{port: sql}]
---
apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: guard}
spec:
  tier: Admin
  priority: 1
  subject: {namespaces: {matchLabels: {team: sales}}}
  egress:
  - {action: Deny, to: [{networks: ["10.244.9.0/24"]}]}
`

const expectations = `apiVersion: policy.poplin.dev/v1alpha1
kind: PolicyTest
expect:
- {from: shop/web, to: "bank/db:5432", verdict: allow}
- from: shop/web
  to: bank/db:sql
  verdict: allow
- {from: shop/web, to: "bank/db:80", verdict: deny}
- {from: external, to: "bank/db:5432", verdict: deny}
- {from: bank/db-outside, to: "bank/db:80/udp", verdict: allow}
- {from: bank/db, to: "external:443", verdict: deny}
- {from: shop/web, to: "bank/db-outside:80", verdict: deny}
`

func test(t *testing.T, texts ...string) (explain.Result, error) {
	t.Helper()
	var files []explain.File
	for i, text := range texts {
		files = append(files, explain.File{Name: string(rune('a'+i)) + ".yaml", Text: []byte(text)})
	}
	return explain.Test(files)
}

// Each case is judged, named by its line, and explained.
func TestFiles(t *testing.T) {
	r, err := test(t, expectations, manifests)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Cases) != 7 || r.Failed != 1 {
		t.Errorf("%d cases, %d failed, want 7 and 1", len(r.Cases), r.Failed)
	}
	for _, want := range []string{
		"pass a.yaml:4: want allow: shop/web to bank/db, port 5432/tcp: allowed\n",
		"    ingress of pod bank/db: allowed by NetworkPolicy bank/db, spec.ingress[1]\n",
		"pass a.yaml:5: want allow: shop/web to bank/db, port 5432/tcp: allowed\n",
		"pass a.yaml:8: want deny: shop/web to bank/db, port 80/tcp: denied\n",
		"    ingress of pod bank/db: denied, isolated by NetworkPolicy bank/db; none of their rules allows it\n",
		"    ingress of pod bank/db: allowed by NetworkPolicy bank/db, spec.ingress[0]\n",
		"FAIL a.yaml:11: want deny: bank/db to external, port 443/tcp: allowed\n",
		"    egress of pod shop/web: denied by ClusterNetworkPolicy guard, spec.egress[0]\n",
		"6 of 7 cases pass\n",
	} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("no %q in\n%s", want, r)
		}
	}
	text, err := json.Marshal(r.Cases[2])
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"file":"a.yaml","line":8,"want":"deny","pass":true,"from":"shop/web","to":"bank/db","protocol":"tcp","port":80,"allowed":false`,
		`"direction":"ingress","pod":{"namespace":"bank","name":"db"},"allowed":false,"tier":"NetworkPolicy","isolating":[{"kind":"NetworkPolicy","namespace":"bank","name":"db"}]`,
	} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}

// What a policy cannot mean is said beside the cases.
func TestFindings(t *testing.T) {
	odd := strings.Replace(manifests, "ports: [{port: sql}]", "ports: [{port: 90, endPort: 80}]", 1)
	r, err := test(t, odd, expectations)
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Findings) != 1 || !strings.Contains(r.String(), "warning: bank/db: spec.ingress[1]: port 0: the range from 90 to 80 is empty") {
		t.Errorf("findings %q in\n%s", r.Findings, r)
	}
}

// Each mistake is named with the line where it stands.
func TestMistakes(t *testing.T) {
	edit := func(old, now string) string { return strings.Replace(expectations, old, now, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"unknown pod", edit("from: bank/db,", "from: bank/nobody,"), "b.yaml:11: there is no pod bank/nobody with a network of its own"},
		{"no port", edit(`"bank/db:80"`, "bank/db"), `b.yaml:8: "bank/db" has no port: write END:PORT, or END:PORT/udp`},
		{"a port that is none", edit(`"bank/db:80"`, `"bank/db:70000"`), `b.yaml:8: "bank/db:70000": "70000" is no port`},
		{"an unknown protocol", edit("80/udp", "80/quic"), `b.yaml:10: "bank/db:80/quic": "quic" is no protocol with ports`},
		{"a name that no port has", edit("bank/db:sql", "bank/db:http"), `b.yaml:5: the destination has no tcp port named "http"`},
		{"no end", edit("from: external", "from: outside"), `b.yaml:9: "outside" is neither NAMESPACE/POD nor node/NAME`},
		{"an unknown verdict", edit("  verdict: allow", "  verdict: yes"), `b.yaml:7: verdict: "yes" is not understood: write allow or deny`},
		{"an unknown key", edit("  verdict: allow", "  verdikt: allow"), `b.yaml:7: unknown key "verdikt"; known here: from, to, verdict`},
		{"a key that stands twice", edit("  verdict: allow", "  to: x/y:1"), `b.yaml:7: the key "to" stands twice`},
		{"a key that is missing", edit("  verdict: allow\n", ""), "b.yaml:5: verdict is missing"},
		{"no list", "apiVersion: policy.poplin.dev/v1alpha1\nkind: PolicyTest\nexpect: {}", "b.yaml:1: expect: write a list of entries"},
		{"no expectations", "", "nothing is expected: write a document of kind PolicyTest"},
		{"no object", "just text", "b.yaml:1: this is no object: it needs apiVersion and kind"},
		{"no YAML", "a: [", "b.yaml: yaml: line 1"},
		{"an unknown field", "\n\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: x}\nspec: {podSelektor: {}}",
			`b.yaml:3: read NetworkPolicy: error unmarshaling JSON: while decoding JSON: json: unknown field "podSelektor"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := test(t, manifests, c.text); err == nil || !strings.HasPrefix(err.Error(), c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}
