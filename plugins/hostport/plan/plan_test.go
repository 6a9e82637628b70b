package plan

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"
)

var dual = []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:10:244:1::5")}

func elements(raw string, pod []netip.Addr) ([]Element, error) {
	m, err := Parse([]byte(raw))
	if err != nil {
		return nil, err
	}
	return Elements(m, pod)
}

func TestElements(t *testing.T) {
	for _, row := range []struct {
		raw  string
		pod  []netip.Addr
		want string
	}{
		{``, dual, "[]"},
		{`[]`, dual, "[]"},
		{`[{"containerPort":80}]`, dual, "[]"},
		{`[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]`, dual, "[0.0.0.0:8080/tcp [::]:8080/tcp]"},
		{`[{"hostPort":8080,"containerPort":80,"protocol":"TCP","hostIP":"0.0.0.0"}]`, dual, "[0.0.0.0:8080/tcp]"},
		{`[{"hostPort":8080,"containerPort":80}]`, dual[1:], "[[::]:8080/tcp]"},
		{`[{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.1"},{"hostPort":53,"containerPort":53,"protocol":"sctp","hostIP":"2001:db8::1"}]`, dual,
			"[192.0.2.1:53/udp [2001:db8::1]:53/sctp]"},
		{`[{"HostPort":8080,"ContainerPort":80,"Protocol":"tcp","HostIP":""}]`, dual[:1], "[0.0.0.0:8080/tcp]"},
		{`[{"hostPort":80,"containerPort":80},{"hostPort":80,"containerPort":80}]`, dual[:1], "[0.0.0.0:80/tcp]"},
		{`[{"hostPort":80,"containerPort":80,"hostIP":"192.0.2.1"},{"hostPort":80,"containerPort":81,"hostIP":"192.0.2.2"}]`, dual, "[192.0.2.1:80/tcp 192.0.2.2:80/tcp]"},
	} {
		got, err := elements(row.raw, row.pod)
		if err != nil || fmt.Sprint(got) != row.want {
			t.Errorf("%s: %v, %v, want %s", row.raw, got, err, row.want)
		}
	}
}

func TestRefuses(t *testing.T) {
	for _, row := range []struct{ raw, want string }{
		{`{}`, "runtimeConfig.portMappings: want a list, have {}"},
		{`[1]`, "runtimeConfig.portMappings[0]: want a JSON object"},
		{`[{"hostPort":8080}]`, "portMappings[0].containerPort: 0 is no port"},
		{`[{"hostPort":-1,"containerPort":1}]`, "portMappings[0].hostPort: -1 is no port"},
		{`[{"hostPort":65536,"containerPort":1}]`, "65536 is no port; give 1 to 65535"},
		{`[{"hostPort":"80","containerPort":1}]`, `portMappings[0].hostPort: cannot use "80"`},
		{`[{"hostPort":80,"containerPort":1,"protocol":"icmp"}]`, `"icmp" is none of tcp, udp, sctp`},
		{`[{"hostPort":80,"containerPort":1,"hostIp":"x"}]`, "hostIp: unknown key"},
		{`[{"hostPort":80,"containerPort":1,"hostIP":"node-1"}]`, `hostIP: "node-1" is no address`},
		{`[{"hostPort":80,"containerPort":1,"hostIP":"fe80::1%eth0"}]`, "is no address"},
		{`[{"hostPort":80,"containerPort":1,"hostIP":"2001:db8::1"}]`, "the pod has no address of that family"},
		{`[{"hostPort":80,"containerPort":1},{"hostPort":80,"containerPort":2,"hostIP":"192.0.2.1"}]`, "192.0.2.1:80/tcp is given twice"},
	} {
		if got, err := elements(row.raw, dual[:1]); err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: %v, %v, want %q", row.raw, got, err, row.want)
		}
	}
}

func TestConflict(t *testing.T) {
	for _, row := range []struct {
		a, b string
		want bool
	}{
		{`"hostIP":""`, `"hostIP":""`, true},
		{`"hostIP":"192.0.2.1"`, `"hostIP":"192.0.2.2"`, false},
		{`"hostIP":"192.0.2.1"`, `"hostIP":"0.0.0.0"`, true},
		{`"hostIP":"192.0.2.1"`, `"hostIP":"::"`, false},
		{`"protocol":"tcp"`, `"protocol":"udp"`, false},
		{`"hostIP":"2001:db8::1"`, `"hostIP":""`, true},
	} {
		parse := func(more string) []Element {
			list, err := elements(`[{"hostPort":80,"containerPort":1,`+more+`}]`, dual)
			if err != nil {
				t.Fatal(err)
			}
			return list
		}
		for _, pair := range [][2]string{{row.a, row.b}, {row.b, row.a}} {
			if _, got := Conflict(parse(pair[0]), parse(pair[1])); got != row.want {
				t.Errorf("%s and %s: %v", pair[0], pair[1], got)
			}
		}
	}
}

// FuzzParse: whatever a runtime sends, what is accepted can be in the kernel.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`[{"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"::"}]`))
	f.Add([]byte(`[{"hostPort":8080,"containerPort":80,"protocol":6}]`))
	f.Add([]byte(`[null]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := elements(string(raw), dual)
		if err != nil {
			return
		}
		for _, e := range list {
			b, err := json.Marshal(e)
			var back Element
			if err == nil {
				err = json.Unmarshal(b, &back)
			}
			if err != nil || back != e || !e.Valid() {
				t.Errorf("%v is read back as %v, %v", e, back, err)
			}
		}
	})
}
