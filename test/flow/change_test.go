package flow

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"poplin.dev/poplin/pkg/cluster/service"
)

// TestChangesLoseNothing: while endpoints come and go, other Services are
// added and another process takes the table over, every connection to one of
// two Services reaches an endpoint of that Service.
func TestChangesLoseNothing(t *testing.T) {
	changes := 300
	if os.Getenv("POPLIN_SOAK") == "1" {
		changes = 20000
	}
	l := newLab(t)
	l.patience = 10 * time.Second // nobody here is to be silent, however slow the machine
	two := func(endpoints ...string) {
		first := serviceOf(nil, endpoints...)
		l.table.Set(first.Service, first.slices)
		second := serviceOf(func(o *object) {
			o.Name, o.ClusterIPs, o.Ports[0].NodePort = "second", both("unassigned"), 30081
			for i := range o.slices {
				o.slices[i].Name, o.slices[i].Service = fmt.Sprint("second-", i), "second"
				o.slices[i].Ports[0].Port = 9090
			}
		}, endpoints...)
		l.table.Set(second.Service, second.slices)
		l.sync(t)
	}
	two("pod2", "remote")

	var asked atomic.Int64
	stop := make(chan struct{})
	var clients sync.WaitGroup
	for _, c := range []struct {
		from, to string
		port     uint16
		want     string
		ipv6     bool
	}{
		{"pod1", "vip", 80, ":8080 ", false},
		{"pod1", "unassigned", 80, ":9090 ", true},
		{"client", "node", 30080, ":8080 ", true},
		{"client", "node", 30081, ":9090 ", false},
	} {
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				a := l.ask(t, c.from, c.to, service.TCP, c.port, c.ipv6)
				asked.Add(1)
				if !strings.Contains(a, c.want) {
					t.Errorf("%s to %s:%d: %s after %d connections", c.from, c.to, c.port, a, asked.Load())
					return
				}
			}
		})
	}
	defer clients.Wait()
	defer close(stop)
	for i := range changes {
		two([][]string{{"pod1"}, {"pod2", "remote"}, {"remote", "pod1", "pod2"}, {"remote"}, {"pod1", "pod2"}}[rand.IntN(5)]...)
		switch {
		case i%10 == 3:
			o := serviceOf(func(o *object) {
				o.Name, o.Ports[0].NodePort = fmt.Sprint("other-", i), 0
				o.ClusterIPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 1 + byte(i>>8), byte(i)})}
			}, "pod1", "pod2")
			l.table.Set(o.Service, o.slices)
			l.sync(t)
		case i%50 == 7:
			l.kernel.Forget()
			if _, err := l.kernel.Set(l.table.Program()); err != nil {
				t.Fatal(err)
			}
		}
		// A few connections between any two changes.
		for asked.Load() < int64(4*i) {
			if t.Failed() {
				return
			}
			time.Sleep(50 * time.Microsecond)
		}
	}
	t.Logf("%d connections during %d changes", asked.Load(), changes)
}
