package hostlocal

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"poplin.dev/poplin/plugins/call"
)

func args(t *testing.T, config, more string) call.Call {
	t.Helper()
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"pods","type":"poplin",%s"ipam":{"type":"host-local","dataDir":%q,%s}}`, more, t.TempDir(), config)
	return call.Call{ContainerID: "web", IfName: "eth0", Stdin: []byte(conf)}
}

// detached is a kernel without links.
type detached struct{}

func (detached) Linked(string, string) (bool, error) { return false, nil }
func (detached) Routed(netip.Addr) (bool, error)     { return false, nil }

var ipam = Plugin{Kernel: detached{}, Warn: func(string) {}}

const dual = `"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"fd00:10:244:1::/64"}]]`

func TestParseRefuses(t *testing.T) {
	for _, row := range []struct{ ipam, more, args, want string }{
		{`"ranges":[]`, "", "", "ipam.ranges: no range"},
		{`"ranges":[[]]`, "", "", "ipam.ranges[0]: holds no range"},
		{`"ranges":[[{"subnet":"10.244.1.0"}]]`, "", "", `ipam.ranges[0][0].subnet: "10.244.1.0" is no prefix`},
		{`"ranges":[[{"subnet":"10.244.1.1/24"}]]`, "", "", "ipam.ranges[0][0].subnet: 10.244.1.1/24 has host bits set; write 10.244.1.0/24"},
		{`"ranges":[[{"subnet":"10.244.1.0/24","rangeStart":"10.244.2.1"}]]`, "", "", "ipam.ranges[0][0].rangeStart: 10.244.2.1"},
		{`"ranges":[[{"subnet":"10.244.1.0/24","gateway":"gw"}]]`, "", "", `ipam.ranges[0][0].gateway: "gw" is no IP address`},
		{`"ranges":[[{"subnet":"10.244.1.0/24"},{"subnet":"fd00::/64"}]]`, "", "", "ipam.ranges[0]: mixes IPv4 and IPv6"},
		{`"ranges":[[{"subnet":"10.244.1.0/24"}],[{"subnet":"10.244.0.0/16"}]]`, "", "", "overlaps"},
		{`"ranges":[[{"subnet":"10.244.1.0/24"}]],"subnet":"10.244.1.0/24"`, "", "", "overlaps"},
		{`"rangeStart":"10.244.1.9"`, "", "", `ipam.subnet: "" is no prefix`},
		{dual + `,"routes":[{"dst":"everywhere"}]`, "", "", "ipam.routes"},
		{dual + `,"routes":[null]`, "", "", "ipam.routes[0].dst: missing"},
		{dual + `,"routes":[{"dst":"10.0.0.0/8","gw":"10.244.1.1"}]`, "", "", "ipam.routes[0].gw: 10.244.1.1 cannot be chosen"},
		{dual + `,"routes":[{"dst":"10.0.0.0/8","table":7}]`, "", "", "ipam.routes[0]: table"},
		{dual + `,"subnets":[]`, "", "", "ipam.subnets: unknown key with value []"},
		{dual, `"runtimeConfig":{"ips":["10.9.0.1"]},`, "", "runtimeConfig.ips: 10.9.0.1 is none of the addresses"},
		{dual, `"runtimeConfig":{"ips":["10.244.1.1"]},`, "", "runtimeConfig.ips: 10.244.1.1 is none of the addresses"},
		{dual, `"runtimeConfig":{"ips":["10.244.1.8","10.244.1.9"]},`, "", "both of range set 0"},
		{dual, `"runtimeConfig":{"ips":["fd00:10:244:1::9%../../etc"]},`, "", "is no IP address"},
		{dual, `"args":{"cni":{"ips":["x"]}},`, "", `args.cni.ips: "x" is no IP address`},
		{dual, "", "IP=10.9.9.9;IgnoreUnknown=1", "CNI_ARGS IP: 10.9.9.9"},
	} {
		a := args(t, row.ipam, row.more)
		a.Args = row.args
		_, err := ipam.Add(a)
		e := new(types.Error)
		if !errors.As(err, &e) || e.Code != types.ErrInvalidNetworkConfig || !strings.Contains(e.Details, row.want) {
			t.Errorf("%s %s: %v, want %q", row.ipam, row.more, err, row.want)
		}
	}
}

func TestRequestedAddresses(t *testing.T) {
	for _, row := range []struct{ ipam, more, args, want string }{
		{dual, "", "", "10.244.1.2/32 fd00:10:244:1::2/128"},
		{dual, `"runtimeConfig":{"ips":["fd00:10:244:1::99/64","10.244.1.9"]},`, "", "10.244.1.9/32 fd00:10:244:1::99/128"},
		{dual, `"args":{"cni":{"ips":["10.244.1.8"]}},`, "", "10.244.1.8/32 fd00:10:244:1::2/128"},
		{dual, "", "IgnoreUnknown=1;IP=10.244.1.7;K8S_POD_NAME=web", "10.244.1.7/32 fd00:10:244:1::2/128"},
		{`"subnet":"10.244.1.0/24","rangeStart":"10.244.1.40","rangeEnd":"10.244.1.50","gateway":"10.244.1.40"`, "", "", "10.244.1.41/32"},
		{dual, `"runtimeConfig":{"ipRanges":[[{"subnet":"10.99.0.0/28"}]]},`, "", "10.99.0.2/32 10.244.1.2/32 fd00:10:244:1::2/128"},
	} {
		a := args(t, row.ipam, row.more)
		a.Args = row.args
		result, err := ipam.Add(a)
		if err != nil {
			t.Errorf("%s %s: %v", row.ipam, row.more, err)
			continue
		}
		var got []string
		for _, ip := range result.IPs {
			got = append(got, ip.Address.String())
		}
		if s := strings.Join(got, " "); s != row.want {
			t.Errorf("%s %s: got %s, want %s", row.ipam, row.more, s, row.want)
		}
	}
}

func TestRoutesAndResolver(t *testing.T) {
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	text := "# comment\nnameserver 10.96.0.10\nsearch old\nsearch svc.cluster.local cluster.local\noptions ndots:5\noptions edns0\nnonsense\n"
	if err := os.WriteFile(resolv, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := ipam.Add(args(t, dual+fmt.Sprintf(`,"routes":[{"dst":"10.0.0.0/8","mtu":1300}],"resolvConf":%q`, resolv), ""))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Routes) != 1 || r.Routes[0].MTU != 1300 {
		t.Errorf("routes %v", r.Routes)
	}
	if got := fmt.Sprint(r.DNS); got != "{[10.96.0.10]  [svc.cluster.local cluster.local] [ndots:5 edns0]}" {
		t.Errorf("dns %s", got)
	}
	if _, err := ipam.Add(args(t, dual+`,"resolvConf":"/no/such/file"`, "")); err == nil || !strings.Contains(err.Error(), "/no/such/file") {
		t.Errorf("missing resolvConf: %v", err)
	}
}

func TestTwiceAndReleased(t *testing.T) {
	a := args(t, dual, "")
	first, err := ipam.Add(a)
	if err != nil {
		t.Fatal(err)
	}
	if len(first.Interfaces) > 0 || len(first.IPs) != 2 || first.IPs[0].Interface != nil {
		t.Errorf("an IPAM's result knows interfaces: %v", first)
	}
	_, err = ipam.Add(a)
	e := new(types.Error)
	if !errors.As(err, &e) || e.Code != codeExists || !strings.Contains(e.Details, "10.244.1.2") {
		t.Errorf("twice: %v", err)
	}
	if err := ipam.Status(a); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := ipam.Del(a); err != nil {
			t.Error(err)
		}
	}
	// The next one in the round, not the one just released.
	if r, err := ipam.Add(a); err != nil || r.IPs[0].Address.IP.String() != "10.244.1.3" {
		t.Errorf("%v, %v", r, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"name":"pods","ipam":{"type":"host-local","ranges":[[{"subnet":"10.244.1.0/24","rangeStart":"10.244.1.9"}]]}}`, "IP=10.244.1.9")
	f.Add(`{"name":"..","ipam":{"subnet":"fd00::/64"},"runtimeConfig":{"ips":["fd00::9"]}}`, "")
	f.Add(`{"name":"pods","ipam":{"ranges":[[{"subnet":"0.0.0.0/0"}]],"routes":[null]},"args":{"cni":{"ips":[""]}}}`, ";;=")
	f.Fuzz(func(t *testing.T, stdin, args string) {
		l, lenient := parseLease([]byte(stdin))
		c, err := parse([]byte(stdin), args)
		if err != nil {
			return
		}
		if lenient != nil || l.dir != c.dir || l.wanted != len(c.sets) {
			t.Fatalf("ADD uses %s and %d sets, DEL %s and %d (%v)", c.dir, len(c.sets), l.dir, l.wanted, lenient)
		}
		if !strings.HasPrefix(c.dir.reservations(), "/") {
			t.Fatalf("directory %s", c.dir)
		}
		for _, a := range c.requested {
			if c.setOf(a) < 0 || strings.ContainsRune(a.String(), '/') {
				t.Fatalf("requested %s", a)
			}
		}
		for _, p := range c.picks() {
			for range p(c.sets[0][0].First) {
				break
			}
		}
	})
}
