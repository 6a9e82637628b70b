package policies

import "testing"

// FuzzClusterPolicy: of a rule there is all, or a reason for none of it.
func FuzzClusterPolicy(f *testing.F) {
	f.Add(`{"tier":"Admin","priority":1,"subject":{"namespaces":{}},"ingress":[{"action":"Pass","from":[{"pods":{"podSelector":{"matchLabels":{"a":"b"}}}}]}]}`)
	f.Add(`{"tier":"Baseline","subject":{"pods":{"podSelector":{}}},"egress":[{"action":"Deny","to":[{"networks":["10.0.0.0/8"]},{"nodes":{}}],"protocols":[{"tcp":{"destinationPort":{"range":{"start":1,"end":2}}}},{"destinationNamedPort":"http"}]}]}`)
	f.Add(`{"tier":"Admin","subject":{"namespaces":{}},"egress":[{"action":"Accept","to":[{"domainNames":["a."]}]},7,{"to":[{}]},null]}`)
	f.Fuzz(func(t *testing.T, spec string) {
		p := readCluster("p", []byte(spec))
		if p.Unread != "" && len(p.Ingress)+len(p.Egress) > 0 {
			t.Fatalf("half of %+v is in force", p)
		}
		for _, r := range append(p.Ingress, p.Egress...) {
			switch {
			case r.Unread != "" && (r.Peers != nil || r.Ports != nil):
				t.Fatalf("half of the rule %+v", r)
			case r.Unread == "" && len(r.Peers) == 0:
				t.Fatalf("the rule %+v is about everybody", r)
			}
			for _, port := range r.Ports {
				if port.Name == "" && (port.Protocol == 0 || port.First == 0 || port.First > port.Last) {
					t.Fatalf("a port that is none: %+v", port)
				}
			}
		}
	})
}
