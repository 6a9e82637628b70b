package web

import "strings"

// Rewritten is the path that is forwarded instead of path, which is in normal
// form and was matched. A group may hold anything: what comes out is brought
// into normal form again, and refused where it would climb.
func (r *Route) Rewritten(path string) (string, bool) {
	if r.Rewrite == "" {
		return path, true
	}
	var groups []string
	if r.Match != nil {
		groups = r.Match.FindStringSubmatch(path)
	}
	var b strings.Builder
	for i := 0; i < len(r.Rewrite); i++ {
		if c := r.Rewrite[i]; c != '$' {
			b.WriteByte(c)
			continue
		}
		i++
		if n := int(r.Rewrite[i] - '0'); n < len(groups) {
			b.WriteString(groups[n])
		}
	}
	out := "/" + strings.TrimLeft(b.String(), "/")
	clean, err := Clean(out)
	return clean, err == nil && !strings.Contains(out+"/", "/../")
}
