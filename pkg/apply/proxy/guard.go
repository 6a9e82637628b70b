package proxy

import (
	"net/http"
	"strconv"

	"poplin.dev/poplin/pkg/program/web"
)

// cors marks the answer for a browser, and reports true if the request was a
// preflight, which is answered here.
func (x *exchange) cors(r *http.Request, c *web.CORS) bool {
	origin := r.Header.Get("Origin")
	h := x.Header()
	allowed := c.Any || c.Origins[origin]
	for _, p := range c.Patterns {
		allowed = allowed || p.MatchString(origin)
	}
	if origin == "" {
		return false
	}
	if !c.Any {
		h.Add("Vary", "Origin")
	}
	if allowed {
		if c.Any {
			// Browsers refuse credentials with "*", and that is as it should
			// be: any site could use them.
			h.Set("Access-Control-Allow-Origin", "*")
		} else {
			h.Set("Access-Control-Allow-Origin", origin)
		}
		if c.Credentials {
			h.Set("Access-Control-Allow-Credentials", "true")
		}
		if c.Expose != "" {
			h.Set("Access-Control-Expose-Headers", c.Expose)
		}
	}
	if r.Method != http.MethodOptions || r.Header.Get("Access-Control-Request-Method") == "" {
		return false
	}
	if allowed {
		h.Set("Access-Control-Allow-Methods", c.Methods)
		h.Set("Access-Control-Allow-Headers", c.Headers)
		h.Set("Access-Control-Max-Age", strconv.Itoa(c.MaxAgeSeconds))
	}
	x.WriteHeader(http.StatusNoContent)
	return true
}
