package call

import (
	"errors"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
)

func read(env map[string]string, stdin string) (Call, error) {
	return Read(func(name string) string { return env[name] }, strings.NewReader(stdin))
}

const conf = `{"cniVersion":"1.0.0","name":"pods"}`

func env(changes ...string) map[string]string {
	e := map[string]string{
		"CNI_COMMAND": "ADD", "CNI_CONTAINERID": "0123", "CNI_NETNS": "/run/netns/x", "CNI_IFNAME": "eth0", "CNI_PATH": "/opt/cni/bin", "CNI_ARGS": "A=b",
	}
	for i := 0; i < len(changes); i += 2 {
		e[changes[i]] = changes[i+1]
	}
	return e
}

func TestRead(t *testing.T) {
	c, err := read(env(), conf)
	if err != nil {
		t.Fatal(err)
	}
	if c.Command != "ADD" || c.ContainerID != "0123" || c.Netns != "/run/netns/x" || c.IfName != "eth0" || c.Path != "/opt/cni/bin" ||
		c.Args != "A=b" || c.CNIVersion != "1.0.0" || string(c.Stdin) != conf {
		t.Errorf("got %+v", c)
	}
	for _, e := range []map[string]string{
		env("CNI_COMMAND", "DEL", "CNI_NETNS", ""),
		env("CNI_COMMAND", "CHECK"),
		{"CNI_COMMAND": "VERSION"},
		env("CNI_IFNAME", "fifteen-letters", "CNI_CONTAINERID", "A_.-9"),
	} {
		if _, err := read(e, conf); err != nil {
			t.Errorf("%v: %v", e, err)
		}
	}
	for _, command := range []string{"GC", "STATUS"} {
		if _, err := read(map[string]string{"CNI_COMMAND": command}, strings.Replace(conf, "1.0.0", "1.1.0", 1)); err != nil {
			t.Errorf("%s: %v", command, err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for _, row := range []struct {
		env   map[string]string
		stdin string
		code  uint
		want  string
	}{
		{env("CNI_COMMAND", ""), conf, 4, "CNI_COMMAND is none of"},
		{env("CNI_COMMAND", "add"), conf, 4, `CNI_COMMAND "add" is none of`},
		{env("CNI_NETNS", ""), conf, 4, "CNI_NETNS is missing: ADD needs it"},
		{env("CNI_COMMAND", "DEL", "CNI_CONTAINERID", ""), conf, 4, "CNI_CONTAINERID is missing"},
		{env("CNI_CONTAINERID", "../x"), conf, 4, `CNI_CONTAINERID "../x" may not have '.'`},
		{env("CNI_CONTAINERID", "a/b"), conf, 4, `may not have '/'`},
		{env("CNI_IFNAME", "sixteen-letters-"), conf, 4, "is too long: 16 bytes"},
		{env("CNI_IFNAME", ".."), conf, 4, "is no interface name"},
		{env("CNI_IFNAME", "a b"), conf, 4, "may not have"},
		{env(), `{`, 6, "stdin"},
		{env(), `{"name":"pods"}`, 1, `cniVersion: "" is none of`},
		{env(), `{"cniVersion":"2.0.0","name":"pods"}`, 1, `cniVersion: "2.0.0" is none of 0.3.1`},
		{env("CNI_COMMAND", "CHECK"), `{"cniVersion":"0.3.1","name":"pods"}`, 1, "0.3.1 has no CHECK"},
		{env("CNI_COMMAND", "STATUS"), conf, 1, "1.0.0 has no STATUS, which came with 1.1.0"},
		{env(), `{"cniVersion":"1.0.0"}`, 7, `name: "" is no network name`},
		{env(), `{"cniVersion":"1.0.0","name":"../x"}`, 7, `name: "../x"`},
	} {
		_, err := read(row.env, row.stdin)
		e := new(types.Error)
		if !errors.As(err, &e) || e.Code != row.code || e.Msg == "" || !strings.Contains(e.Details, row.want) {
			t.Errorf("%v %s: %v, want code %d, %q", row.env, row.stdin, err, row.code, row.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("ADD", "0123", "eth0", conf)
	f.Add("GC", "", "", `{"cniVersion":"1.1.0","name":"pods","cni.dev/valid-attachments":[{"containerID":"0123","ifname":"eth0"}]}`)
	f.Add("GC", "", "", `{"cniVersion":"1.1.0","name":"pods","cni.dev/attachments":[{}],"cni.dev/valid-attachments":null}`)
	f.Add("DEL", "a/b", "sixteen-letters-", `{"cniVersion":"0.3.1","name":".."}`)
	f.Fuzz(func(t *testing.T, command, id, ifName, stdin string) {
		c, err := read(env("CNI_COMMAND", command, "CNI_CONTAINERID", id, "CNI_IFNAME", ifName), stdin)
		if err == nil && (strings.ContainsAny(c.ContainerID, "/\x00 ") || len(c.IfName) > 15 || strings.ContainsAny(c.IfName, "/ ")) {
			t.Fatalf("accepted %+v", c)
		}
		valid, err := c.Valid()
		if err == nil && !strings.Contains(stdin, "attachments") {
			t.Fatalf("%v is valid by no list", valid)
		}
		for _, a := range valid {
			if a.ContainerID == "" || a.IfName == "" {
				t.Fatalf("valid: %+v", valid)
			}
		}
	})
}
