package sandbox

import (
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
		"poplin-c2-eth0": `{"containerId":"c2","ifName":"eth0","networkName":"poplin","result":{"interfaces":[{"name":"plw1"},{"name":"eth0","sandbox":"/run/netns/y"}]}}`,
		"poplin-c3-eth0": ``,
		"poplin-c4-eth0": `{"result":{}}`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Read(dir)
	want := []Attachment{{"c1", "eth0", "poplin", "default/web-0", "/run/netns/x"}, {"c2", "eth0", "poplin", "", "/run/netns/y"}}
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
}
