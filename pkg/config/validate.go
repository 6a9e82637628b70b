package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// networkName is what the CNI specification allows (section 1, "name").
var networkName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]*$`)

// capabilities are those of the poplin plugin and its IPAM.
var capabilities = []string{"ips", "ipRanges", "mac", "portMappings", "bandwidth"}

// validate names every value that cannot work.
func (c Config) validate() error {
	var errs []error
	fail := func(path, format string, args ...any) {
		errs = append(errs, fmt.Errorf("%s: %s", path, fmt.Sprintf(format, args...)))
	}
	if c.APIVersion != APIVersion {
		fail("apiVersion", "%q is not understood: write %s", c.APIVersion, APIVersion)
	}
	if c.Kind != Kind {
		fail("kind", "%q is not understood: write %s", c.Kind, Kind)
	}
	for _, k := range Keys() {
		if err := k.check(k.In(c)); err != nil {
			fail(k.Path, "%v", err)
		}
	}
	for i, e := range c.APIServer.Endpoints {
		if err := checkEndpoint(e); err != nil {
			fail(fmt.Sprintf("apiServer.endpoints[%d]", i), "%q %v", e, err)
		}
	}
	checkPrefixes(fail, "clusterCIDRs", c.ClusterCIDRs)
	checkPrefixes(fail, "masquerade.excludeCIDRs", c.Masquerade.ExcludeCIDRs)
	if err := checkInterface(c.Overlay.Interface); err != nil {
		fail("overlay.interface", "%q %v", c.Overlay.Interface, err)
	}
	c.Services.validate(fail)
	c.CNI.validate(fail)
	checkListener(fail, "health.address", c.Health.Address)
	checkListener(fail, "metrics.address", c.Metrics.Address)
	if m := c.Metrics; (m.CertFile == "") != (m.KeyFile == "") {
		fail("metrics.keyFile", "a certificate has certFile and keyFile: write both, or none for one that the daemon makes")
	} else if m.CertFile != "" && !m.Reachable() {
		fail("metrics.certFile", "%s is for this node alone and served without a certificate: leave it out, or write an address that others reach, such as :9410", m.Address)
	}
	if c.Health.Address == c.Metrics.Address && c.Health.Address != "" {
		fail("metrics.address", "%q is health.address too: give each a port of its own", c.Metrics.Address)
	}
	return errors.Join(errs...)
}

type failFunc = func(path, format string, args ...any)

func (s Services) validate(fail failFunc) {
	if _, err := s.NodePortRanges(); err != nil {
		fail("services.nodePortAddresses", "%v", err)
	}
	checkPrefixes(fail, "services.externalIPCIDRs", s.ExternalIPCIDRs)
	checkListener(fail, "services.healthz.address", s.Healthz.Address)
}

// NodePortRanges are the ranges of nodePortAddresses; none means primary.
func (s Services) NodePortRanges() ([]netip.Prefix, error) {
	if slices.Equal(s.NodePortAddresses, []string{Primary}) {
		return nil, nil
	}
	if len(s.NodePortAddresses) == 0 {
		return nil, errors.New("is empty: write primary, or ranges such as 192.0.2.0/24; 0.0.0.0/0 and ::/0 are all addresses")
	}
	var ranges []netip.Prefix
	for _, text := range s.NodePortAddresses {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return nil, fmt.Errorf("%q is no range: write primary alone, or ranges such as 192.0.2.0/24", text)
		}
		ranges = append(ranges, p.Masked())
	}
	return ranges, nil
}

// checkInterface accepts a device's name, or one of three ways to find it.
func checkInterface(choice string) error {
	kind, value, found := strings.Cut(choice, ":")
	switch kind {
	case "regexp":
		if _, err := regexp.Compile(value); err != nil || value == "" {
			return errors.New("holds no regular expression that Go understands: write regexp:^en")
		}
	case "cidr":
		if _, err := netip.ParsePrefix(value); err != nil {
			return errors.New("holds no network: write cidr:192.0.2.0/24")
		}
	case "reach":
		if _, err := netip.ParseAddr(value); err != nil {
			return errors.New("holds no address: write reach:192.0.2.1")
		}
	default:
		// IFNAMSIZ is 16 with its closing zero byte.
		if len(choice) > 15 || found || strings.ContainsAny(choice, "/ \t\n") {
			return errors.New("is no name of a network device: at most 15 characters, no slash, no space; or write regexp:EXPRESSION, cidr:NETWORK or reach:ADDRESS")
		}
	}
	return nil
}

func (c CNI) validate(fail failFunc) {
	if !filepath.IsAbs(c.ConfDir) {
		fail("cni.confDir", "%q is no absolute path: write the directory that the container runtime reads, often /etc/cni/net.d", c.ConfDir)
	}
	if !networkName.MatchString(c.Name) {
		fail("cni.name", "%q is no CNI network name: letters, digits, dot, dash and underscore, a letter or digit first", c.Name)
	}
	for _, name := range slices.Sorted(maps.Keys(c.Capabilities)) {
		if !slices.Contains(capabilities, name) {
			fail("cni.capabilities."+name, "unknown capability%s (those of another plugin stand in its own object)", suggest(name, capabilities))
		}
	}
	for i, raw := range c.Plugins {
		path := fmt.Sprintf("cni.plugins[%d]", i)
		if !strings.HasPrefix(string(raw), "{") {
			fail(path, "%s is no object: write the plugin's own keys, with its type", raw)
			continue
		}
		var p types.PluginConf
		if err := json.Unmarshal(raw, &p); err != nil {
			fail(path, "no container runtime could read it: %v", err)
			continue
		}
		switch t := p.Type; {
		case t == "" || strings.ContainsAny(t, "/\\\x00"):
			fail(path+".type", "%q is no plugin: write the name of a binary in the runtime's CNI directory", t)
		case t == "poplin":
			fail(path+".type", "poplin is always first in the chain: list only plugins that follow it")
		}
	}
}

func checkEndpoint(e string) error {
	u, err := url.Parse(e)
	switch {
	case err != nil || u.Scheme != "https" || u.Hostname() == "":
		return errors.New("is no https URL: write https://ADDRESS:PORT")
	case u.Path != "" && u.Path != "/", u.RawQuery != "", u.User != nil:
		return errors.New("has more than an address and a port: write https://ADDRESS:PORT")
	}
	if p := u.Port(); p != "" {
		if n, err := strconv.ParseUint(p, 10, 16); err != nil || n == 0 {
			return errors.New("has no valid port: write one of 1..65535")
		}
	}
	return nil
}

func checkPrefixes(fail failFunc, path string, list []netip.Prefix) {
	for i, p := range list {
		switch {
		case p.Addr().Is4In6():
			fail(fmt.Sprintf("%s[%d]", path, i), "%q is an IPv4 range written as IPv6: write it as IPv4", p)
		case p != p.Masked():
			fail(fmt.Sprintf("%s[%d]", path, i), "%q has bits set past its prefix length: write %s", p, p.Masked())
		}
	}
}

// checkListener accepts an empty address: the server is off.
func checkListener(fail failFunc, path, address string) {
	if address == "" {
		return
	}
	host, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err == nil && host != "" {
		_, err = netip.ParseAddr(host)
	}
	if err != nil {
		fail(path, "%q is no address and port: write it like 127.0.0.1:9411 or [::1]:9411, or empty to switch it off", address)
	}
}
