package dump

import "strings"

// where are the fields in which people put secrets, or nothing of interest.
var where = []string{"env", "envFrom", "command", "args", "httpHeaders", "exec", "managedFields", "data", "binaryData", "stringData", "caBundle"}

// shown are annotations whose values explain what Poplin does.
var shown = []string{"poplin.dev/", "ingress.poplin.dev/", "service.kubernetes.io/", "nginx.ingress.kubernetes.io/"}

// scrub takes secrets out of an object, and says where something was.
func scrub(o any) {
	switch o := o.(type) {
	case []any:
		for _, v := range o {
			scrub(v)
		}
	case map[string]any:
		for _, key := range where {
			if _, there := o[key]; there {
				o[key] = "left out"
			}
		}
		if annotations, ok := o["annotations"].(map[string]any); ok {
			for key := range annotations {
				if !explains(key) {
					annotations[key] = "left out"
				}
			}
		}
		for _, v := range o {
			scrub(v)
		}
	}
}

// explains reports whether an annotation may be shown: a snippet is a text in
// which there may be anything.
func explains(key string) bool {
	for _, prefix := range shown {
		if strings.HasPrefix(key, prefix) {
			return !strings.Contains(key, "snippet") && !strings.Contains(key, "header")
		}
	}
	return false
}
