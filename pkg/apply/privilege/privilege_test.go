package privilege

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"poplin.dev/poplin/test/need"
)

const child = "POPLIN_TEST_CAPABILITIES"

// TestCapabilities asks a process that was left with two of them.
func TestCapabilities(t *testing.T) {
	if os.Getenv(child) != "" {
		list, err := Capabilities()
		if got := strings.Join(list, " "); err != nil || got != "CAP_1 NET_ADMIN" {
			t.Errorf("%q, %v", got, err)
		}
		return
	}
	need.Root(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("setpriv", "--bounding-set=-all,+net_admin,+dac_override", "--inh-caps=-all", self, "-test.run=^TestCapabilities$")
	cmd.Env = append(os.Environ(), child+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}
