package netns

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
)

// TestDevicesBelieveNobody: our devices take no router's, redirect's or own
// word for an address, also where pods have no IPv6, and no packet from outside
// is routed to the loopback network. Other devices keep what they had.
func TestDevicesBelieveNobody(t *testing.T) {
	t.Parallel()
	for _, p := range []plan{ipv4, dual} {
		l := newLab(t, p, 1)
		n := l.nodes[0]
		n.Sysctl(t, "ipv6/conf/default/accept_ra", "2", "ipv6/conf/default/accept_redirects", "1", "ipv6/conf/default/autoconf", "1",
			"ipv4/conf/default/accept_redirects", "1", "ipv4/conf/all/accept_redirects", "1")
		before := n.read(t, "ipv6/conf/eth0/accept_redirects", "ipv6/conf/eth0/autoconf")
		l.startAll(t)
		n.addPod(t)
		for _, dev := range []string{device, "plw2"} {
			keys := []string{
				"ipv6/conf/" + dev + "/accept_ra", "ipv6/conf/" + dev + "/accept_redirects", "ipv6/conf/" + dev + "/autoconf",
				"ipv4/conf/" + dev + "/accept_redirects", "ipv4/conf/" + dev + "/send_redirects", "ipv4/conf/" + dev + "/route_localnet",
			}
			await.Success(t, 5*time.Second, func() error {
				if got := n.read(t, keys...); got != strings.Repeat("0 ", len(keys)) {
					return fmt.Errorf("%v are %s", keys, got)
				}
				return nil
			})
		}
		if got := n.read(t, "ipv4/conf/all/route_localnet", "ipv4/conf/eth0/route_localnet"); got != "0 0 " {
			t.Errorf("route_localnet is %s", got)
		}
		if after := n.read(t, "ipv6/conf/eth0/accept_redirects", "ipv6/conf/eth0/autoconf"); after != before {
			t.Errorf("the underlay's were %s, and are %s", before, after)
		}
	}
}

// read is the values of sysctls, each with a space after it.
func (n *node) read(t testing.TB, keys ...string) (values string) {
	t.Helper()
	if err := n.Do(func() error {
		for _, key := range keys {
			b, err := os.ReadFile("/proc/sys/net/" + key)
			if err != nil {
				return err
			}
			values += strings.TrimSpace(string(b)) + " "
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return values
}
