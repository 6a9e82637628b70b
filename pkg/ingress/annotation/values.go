package annotation

import (
	"errors"
	"math"
	"net/netip"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/pkg/program/web"
)

type duration = time.Duration

func boolean(field func(*reader) *bool) func(*reader, string) error {
	return func(r *reader, v string) (err error) {
		*field(r), err = parseBool(v)
		return err
	}
}

func count(field func(*reader) *int) func(*reader, string) error {
	return func(r *reader, v string) (err error) {
		*field(r), err = parseCount(v)
		return err
	}
}

func seconds(field func(*reader) *duration) func(*reader, string) error {
	return func(r *reader, v string) error {
		n, err := parseCount(strings.TrimSuffix(v, "s"))
		if err != nil || n == 0 {
			return errors.New("is no number of seconds: write one from 1")
		}
		*field(r) = duration(n) * time.Second
		return nil
	}
}

func tokens(field func(*reader) *string) func(*reader, string) error {
	return func(r *reader, v string) error {
		list, err := parseTokens(v)
		*field(r) = strings.Join(list, ", ")
		return err
	}
}

func ranges(field func(*reader) *[]netip.Prefix) func(*reader, string) error {
	return func(r *reader, v string) error {
		var list []netip.Prefix
		for item := range strings.SplitSeq(v, ",") {
			p, err := parseRange(strings.TrimSpace(item))
			if err != nil {
				return err
			}
			list = append(list, p)
		}
		*field(r) = list
		return nil
	}
}

func secretName(field func(*reader) *string) func(*reader, string) error {
	return func(r *reader, v string) error {
		namespace, name, found := strings.Cut(v, "/")
		if !found {
			namespace, name = "", v
		}
		if !objectName.MatchString(name) || found && !objectName.MatchString(namespace) {
			return errors.New("is no name of a Secret")
		}
		*field(r) = v
		return nil
	}
}

var objectName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$`)

func parseBool(v string) (bool, error) {
	b, err := strconv.ParseBool(v)
	if err != nil {
		return false, errors.New("is neither true nor false")
	}
	return b, nil
}

// parseSwitch reads nginx's on and off, and true and false.
func parseSwitch(v string) (bool, error) {
	switch v {
	case "on":
		return true, nil
	case "off":
		return false, nil
	}
	b, err := parseBool(v)
	if err != nil {
		return false, errors.New("is neither on nor off")
	}
	return b, nil
}

func onOff(_ *reader, v string) error { _, err := parseSwitch(v); return err }
func size(_ *reader, v string) error  { _, err := parseSize(v); return err }

func parseCount(v string) (int, error) {
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil {
		return 0, errors.New("is no whole number")
	}
	return int(n), nil
}

// parseSize reads bytes with nginx's suffixes.
func parseSize(v string) (int64, error) {
	shift := 0
	if v != "" {
		switch v[len(v)-1] {
		case 'k', 'K':
			shift = 10
		case 'm', 'M':
			shift = 20
		case 'g', 'G':
			shift = 30
		}
	}
	if shift != 0 {
		v = v[:len(v)-1]
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64>>shift {
		return 0, errors.New("is no size: write bytes, or a number with k, m or g; 0 is no limit")
	}
	return n << shift, nil
}

// parseRange reads a range or one address. Bits past the prefix length are
// dropped: ingress-nginx takes them, and their meaning is clear.
func parseRange(v string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(v); err == nil && a.Zone() == "" {
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(v)
	if err != nil || p.Addr().Is4In6() {
		return p, errors.New("has an item that is no range of addresses: write a list such as 10.0.0.0/8,fd00::/8")
	}
	return p.Masked(), nil
}

func parseTokens(v string) ([]string, error) {
	var list []string
	for item := range strings.SplitSeq(v, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		if !token(item) {
			return nil, errors.New("is no list of names separated by commas")
		}
		list = append(list, item)
	}
	return list, nil
}

// token is RFC 9110, section 5.6.2.
func token(s string) bool {
	return strings.Trim(s, "!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" && s != ""
}

// The defaults are ingress-nginx's, under both prefixes.
const (
	defaultMethods = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
	defaultHeaders = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
	defaultMaxAge  = 1728000
)

func withDefaults(c web.CORS) *web.CORS {
	if c.Methods == "" {
		c.Methods = defaultMethods
	}
	if c.Headers == "" {
		c.Headers = defaultHeaders
	}
	if c.MaxAgeSeconds == 0 {
		c.MaxAgeSeconds = defaultMaxAge
	}
	return &c
}

// enableCORS is read before the others: ingress-nginx allows credentials
// unless told not to.
func (r *reader) enableCORS(v string) (err error) {
	r.cors, err = parseBool(v)
	r.corsOptions.Credentials = r.compat
	return err
}

func (r *reader) corsAllowOrigin(v string) error {
	r.corsOrigin = v
	return parseOrigins(&web.CORS{}, v)
}

func (r *reader) corsCredentials(v string) error {
	on, err := parseBool(v)
	r.corsOptions.Credentials = on
	return err
}

// parseOrigins reads a list of origins; "*" in place of the first label of a
// host opens that label.
func parseOrigins(c *web.CORS, v string) error {
	if v == "" || v == "*" {
		c.Any = true
		return nil
	}
	c.Origins = map[string]bool{}
	for item := range strings.SplitSeq(v, ",") {
		item = strings.TrimSpace(item)
		if item == "*" {
			c.Any = true
			continue
		}
		u, err := url.Parse(strings.Replace(item, "://*.", "://any.", 1))
		if err != nil || u.Scheme == "" || u.Host == "" || u.Path != "" || u.RawQuery != "" || u.User != nil {
			return errors.New("has an item that is no origin: write a list such as https://a.example.com,https://*.example.com")
		}
		if strings.Contains(item, "://*.") {
			c.Patterns = append(c.Patterns, regexp.MustCompile("^"+strings.Replace(regexp.QuoteMeta(item), `\*`, `[A-Za-z0-9_-]+`, 1)+"$"))
			continue
		}
		c.Origins[item] = true
	}
	return nil
}

func (r *reader) setAffinity(v string) error {
	if v != "cookie" {
		return errors.New("is not supported: write cookie")
	}
	r.affinity = true
	return nil
}

func (r *reader) affinityMode(v string) error {
	if v != "balanced" && v != "persistent" {
		return errors.New("is not understood: write balanced or persistent")
	}
	return nil
}

func (r *reader) cookieName(v string) error {
	if !token(v) {
		return errors.New("is no cookie name")
	}
	r.cookie.Cookie = v
	return nil
}

func (r *reader) cookiePath(v string) error {
	if !strings.HasPrefix(v, "/") || strings.ContainsAny(v, ";, \t\r\n") {
		return errors.New("is no cookie path: begin it with /")
	}
	r.cookie.Path = v
	return nil
}

func (r *reader) cookieDomain(v string) error {
	if _, ok := web.HostName(strings.TrimPrefix(v, ".")); !ok {
		return errors.New("is no domain")
	}
	r.cookie.Domain = v
	return nil
}

func (r *reader) cookieSameSite(v string) error {
	switch strings.ToLower(v) {
	case "none", "lax", "strict":
		r.cookie.SameSite = strings.ToLower(v)
		return nil
	}
	return errors.New("is not understood: write None, Lax or Strict")
}
