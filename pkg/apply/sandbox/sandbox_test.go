package sandbox

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

func TestRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "results")
	if _, err := Read(dir); err == nil {
		t.Error("a directory that is not there is no empty list")
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"poplin-c1-eth0": `{"kind":"cniCacheV1","containerId":"c1","ifName":"eth0","networkName":"poplin","netns":"/run/netns/x","cniArgs":[["IgnoreUnknown","1"],["K8S_POD_NAMESPACE","default"],["K8S_POD_NAME","web-0"]],"result":{}}`,
		"poplin-c2-eth0": `{"containerId":"c2","ifName":"eth0","networkName":"poplin","result":{"interfaces":[{"name":"plw1"},{"name":"eth0","mac":"02:00:00:00:00:01","sandbox":"/run/netns/y"},{"name":"eth1"}],"ips":[{"interface":1,"address":"10.244.1.2/24"},{"interface":1,"address":"fd00::2/64","gateway":"fd00::1"},{"interface":2,"address":"10.9.9.9/24"},{"address":"10.9.9.8/24"}]}}`,
		"poplin-c3-eth0": ``,
		"poplin-c4-eth0": `{"result":{}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c := Cache{Dir: dir}
	l, err := c.Read()
	want := []Attachment{
		{ContainerID: "c1", IfName: "eth0", Network: "poplin", Pod: "default/web-0", NetNS: "/run/netns/x"},
		{ContainerID: "c2", IfName: "eth0", Network: "poplin", NetNS: "/run/netns/y",
			MAC: "02:00:00:00:00:01", Addrs: []netip.Addr{netip.MustParseAddr("10.244.1.2"), netip.MustParseAddr("fd00::2")}},
	}
	if err != nil || !reflect.DeepEqual(l.Attachments, want) {
		t.Errorf("%+v, %v", l.Attachments, err)
	}
	for _, id := range []string{"c1", "c2", "c3", "c4"} {
		if !l.Knows(id) {
			t.Errorf("%s may be there", id)
		}
	}
	if l.Knows("c5") {
		t.Error("c5 is not there")
	}

	// Of what was read before, only names are read; what was half a file is read again.
	for name, text := range map[string]string{"poplin-c1-eth0": "", "poplin-c3-eth0": `{"containerId":"c3"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(filepath.Join(dir, "poplin-c2-eth0")); err != nil {
		t.Fatal(err)
	}
	l, err = c.Read()
	if want := []Attachment{want[0], {ContainerID: "c3"}}; err != nil || !reflect.DeepEqual(l.Attachments, want) {
		t.Errorf("%+v, %v", l.Attachments, err)
	}
}
