package cni_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"poplin.dev/poplin/test/cni"
)

// TestGCKeepsWhatIsValid: of all that can be left of pods, GC leaves what the
// runtime lists, and what is not this network's.
func TestGCKeepsWhatIsValid(t *testing.T) {
	n := node(t)
	nodeAddrs(t, n)
	conf := pods(n, "1.1.0", range4+","+range6, "")
	l := list(t, conf)
	others := list(t, strings.NewReplacer(`"pods"`, `"others"`, "10.244.1", "10.99.1", "fd00:10:244:1", "fd00:10:99:1").Replace(conf))
	foreign := func(name string, group uint32, alias string) {
		v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name, Group: group}, PeerName: "p-" + name[3:]}
		no(t, n.Link.LinkAdd(v))
		if alias != "" {
			no(t, n.Link.LinkSetAlias(v, alias))
		}
	}
	foreign("plw0123456789ab", 0, "pods:default/web")
	foreign("net-of-others", 0x706c, "pods:default/web")
	foreign("plwtext", 0x706c, "")

	valid, other := pod(t), pod(t)
	r := add(t, n, l, valid)
	ro := add(t, n, others, other)
	before := fmt.Sprint(reservations(t, n), state(t, n.Link))

	known, forgotten, gone, withoutAddress, withoutLink := pod(t), pod(t), pod(t), pod(t), pod(t)
	for _, p := range []*cni.Pod{known, forgotten, gone, withoutAddress, withoutLink} {
		r := add(t, n, l, p)
		if p != known {
			no(t, n.Forget("pods", p))
		}
		switch p {
		case gone:
			p.Close()
		case withoutAddress:
			for _, name := range reservations(t, n) {
				b, err := os.ReadFile(n.Dir + "/ipam/pods/" + name)
				if err == nil && strings.HasPrefix(string(b), p.ID+"\r\n") {
					no(t, os.Remove(n.Dir+"/ipam/pods/"+name))
				}
			}
		case withoutLink:
			no(t, n.Link.LinkDel(link(t, n.Link, r.Interfaces[0].Name)))
		}
	}
	no(t, os.WriteFile(n.Dir+"/ipam/pods/10.244.1.200", []byte("of-host-local\r\neth0"), 0o600))
	no(t, os.WriteFile(n.Dir+"/ipam/pods/10.244.1.201", []byte("of-an-old-host-local"), 0o600))
	half := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "plw00000000dead", Group: 0x706c}, PeerName: "half"}
	no(t, n.Link.LinkAdd(half))
	if got := len(reservations(t, n)); got < 12 {
		t.Fatalf("%d reservations before GC", got)
	}

	for range 2 {
		no(t, n.GC(l, valid))
	}
	if after := fmt.Sprint(reservations(t, n), state(t, n.Link)); after != before {
		t.Errorf("before %s\nafter  %s", before, after)
	}
	reachNode(t, n, valid, r)
	reachNode(t, n, other, ro)
	no(t, n.Check(l, valid))
	no(t, n.Check(others, other))

	no(t, n.GC(l))
	no(t, n.GC(others))
	for _, name := range []string{"plw0123456789ab", "net-of-others", "plwtext"} {
		no(t, n.Link.LinkDel(link(t, n.Link, name)))
	}
	empty(t, n, valid, other)
}

// A list that is not there is not an empty one.
func TestGCWithoutListRemovesNothing(t *testing.T) {
	n, p := node(t), pod(t)
	conf := pods(n, "1.1.0", range4, "")
	r := add(t, n, list(t, conf), p)
	for more, want := range map[string]string{
		"":                                  "missing",
		`"cni.dev/valid-attachments":{},`:   "cannot unmarshal",
		`"cni.dev/valid-attachments":[{}],`: "cni.dev/valid-attachments[0]",
	} {
		stdout, err := n.Exec("poplin", pods(n, "1.1.0", range4, more), "CNI_COMMAND=GC")
		refused(t, stdout, err, 7, "cni.dev/valid-attachments", want)
	}
	no(t, n.Check(list(t, conf), p))
	link(t, n.Link, r.Interfaces[0].Name)

	// It needs the network's name and no more: the rest may have changed.
	stdout, err := n.Exec("poplin", strings.Replace(pods(n, "1.1.0", "", `"cni.dev/valid-attachments":[],`), "1450", "-1", 1), "CNI_COMMAND=GC")
	if err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
	empty(t, n, p)
}

// script is an IPAM plugin that keeps a list of its calls.
const script = `#!/bin/sh
here=$(dirname "$0")
echo "$CNI_COMMAND" >>"$here/calls"
case "$CNI_COMMAND" in
ADD) echo '{"cniVersion":"1.1.0","ips":[{"address":"10.9.8.7/32"}]}' ;;
STATUS) if [ -e "$here/error" ]; then cat "$here/error"; exit 1; fi ;;
esac
`

func TestGCAndStatusOfDelegatedIPAM(t *testing.T) {
	dir := t.TempDir()
	no(t, os.WriteFile(filepath.Join(dir, "scripted"), []byte(script), 0o755))
	n := node(t, dir)
	l := list(t, `{"cniVersion":"1.1.0","name":"pods","type":"poplin","mtu":1450,"ipam":{"type":"scripted"}}`)
	p := pod(t)
	add(t, n, l, p)
	no(t, n.Status(l))
	no(t, n.GC(l, p))
	no(t, n.Check(l, p))
	no(t, n.Forget("pods", p))
	no(t, n.GC(l))
	empty(t, n, p)
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	no(t, err)
	if got, want := strings.Fields(string(calls)), []string{"ADD", "STATUS", "GC", "CHECK", "GC"}; !slices.Equal(got, want) {
		t.Errorf("IPAM was called with %v, want %v", got, want)
	}

	for text, want := range map[string]string{
		`{"code":51,"msg":"pool is closed"}`:    `"code":51`,
		`{"code":999,"msg":"no such database"}`: `"code":50`,
	} {
		no(t, os.WriteFile(filepath.Join(dir, "error"), []byte(text), 0o600))
		out, err := n.Exec("poplin", string(l.Plugins[0].Bytes), "CNI_COMMAND=STATUS", "CNI_PATH="+dir)
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("IPAM says %s: %v, %s", text, err, out)
		}
	}
}
