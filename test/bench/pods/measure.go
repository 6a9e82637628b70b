// Package pods measures what a pod pays for its network: CNI ADD and DEL, one
// at a time and many at once, on an empty node and beside other pods, for this
// plugin alone and where it waits for a daemon to isolate each pod, for
// upstream's ptp and bridge with host-local, and for the least a Go program can do. Inputs are options and
// upstream's plugins; outputs are figures and verdicts. It refuses to compare
// runs: what is put in relation comes from interleaved batches of one run.
package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containernetworking/cni/libcni"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/test/bench/report"
	"poplin.dev/poplin/test/cni"
)

// Options say how much is measured.
type Options struct {
	// Pods is how many per plugin, serially and again Parallel at once.
	Pods, Parallel int
	// Family is ipv4, ipv6 or dual.
	Family string
	// Upstream is the directory of upstream's plugins.
	Upstream string
}

// Measure is the whole of it.
func Measure(o Options) (report.Area, error) {
	version, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "containernetworking-plugins").Output()
	if err != nil {
		version = []byte("of unknown version")
	}
	a := report.Area{Name: "CNI", Options: fmt.Sprintf("%d pods, %d at once, %s, containernetworking-plugins %s", o.Pods, o.Parallel, o.Family, version)}
	rows, err := measure(o)
	if err != nil {
		return a, err
	}
	a.Tables, a.Verdicts = []report.Table{table(rows)}, judge(rows)
	return a, nil
}

// variant is a plugin under test on a node of its own.
type variant struct {
	name string
	node *cni.Node
	list *libcni.NetworkConfigList
	// args is what the i-th pod's calls get in CNI_ARGS.
	args func(i int) [][2]string
	// made counts pods, so that each has another id.
	made int
	// stay are pods that are there all the while.
	stay []*cni.Pod
}

// close ends the node and the pods that stay.
func (v *variant) close() {
	for _, p := range v.stay {
		p.Close()
	}
	if v.node != nil {
		v.node.Close()
	}
}

// batch is how many pods a variant makes before it is the next one's turn.
const batch = 20

// measure runs all variants in turns, each turn in another order.
func measure(o Options) ([]row, error) {
	dir, err := os.MkdirTemp("", "poplin-bench-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	variants, err := newVariants(o, dir)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, v := range variants {
			v.close()
		}
	}()
	daemon, err := isolate(variants, o)
	if err != nil {
		return nil, err
	}
	defer func() { _ = daemon.Stop() }() // what was measured stands
	// The same sandboxes serve all variants: making and removing namespaces
	// is not what is measured, and the kernel removes them in its own time.
	pods := make([]*cni.Pod, max(batch, 2*o.Parallel))
	for i := range pods {
		if pods[i], err = cni.NewPod("bench"); err != nil {
			return nil, err
		}
		defer pods[i].Close()
	}
	var rows []row
	for _, present := range presence {
		for _, v := range variants {
			if err := v.populate(present, o.Parallel); err != nil {
				return nil, fmt.Errorf("%s: %w", v.name, err)
			}
		}
		for _, m := range o.modes(present) {
			more, err := m.measure(variants, pods)
			if err != nil {
				return nil, err
			}
			rows = append(rows, more...)
		}
	}
	return rows, nil
}

// presence is how many other pods there are on the node: none, a few, and as
// many as the kubelet has at most.
var presence = []int{0, 10, 110}

// mode is a way to ask for pods.
type mode struct {
	name                string
	pods, width, atOnce int // of each variant, at the same time, and in a turn
}

// modes are those in which a node with other pods is asked.
func (o Options) modes(present int) []mode {
	pods, beside := o.Pods, ""
	if present > 0 {
		pods, beside = o.Pods/4, fmt.Sprintf(", beside %d pods", present)
	}
	return []mode{
		{"serial" + beside, pods, 1, batch},
		{fmt.Sprintf("%d at once%s", o.Parallel, beside), pods, o.Parallel, 2 * o.Parallel},
	}
}

// measure has the variants make and remove pods, by turns.
func (m mode) measure(variants []*variant, pods []*cni.Pod) (rows []row, err error) {
	samples := map[string]*sample{}
	for turn := 0; turn*m.atOnce < m.pods+m.atOnce; turn++ {
		for k := range variants {
			v := variants[(k+turn)%len(variants)]
			for _, command := range []string{"ADD", "DEL"} {
				s, err := v.batch(command, pods[:m.atOnce], m.width)
				if err != nil {
					return nil, fmt.Errorf("%s %s: %w", v.name, command, err)
				}
				key := v.name + command
				if samples[key] == nil {
					samples[key] = &sample{}
				}
				if turn > 0 { // the first turn warms caches
					samples[key].add(s)
				}
			}
		}
	}
	for _, command := range []string{"ADD", "DEL"} {
		for _, v := range variants {
			rows = append(rows, samples[v.name+command].row(command, m.name, v.name))
		}
	}
	return rows, nil
}

// populate makes pods that stay, until the node has so many.
func (v *variant) populate(present, width int) error {
	var pods []*cni.Pod
	for range present - len(v.stay) {
		p, err := cni.NewPod("present")
		if err != nil {
			return err
		}
		pods = append(pods, p)
	}
	v.stay = append(v.stay, pods...)
	_, err := v.batch("ADD", pods, width)
	return err
}

func newVariants(o Options, dir string) ([]*variant, error) {
	if err := cni.Build(dir, "cmd/poplin", "test/bench/pods/floor"); err != nil {
		return nil, err
	}
	for _, plugin := range []string{"ptp", "bridge", "host-local"} {
		if _, err := os.Stat(filepath.Join(o.Upstream, plugin)); err != nil {
			return nil, fmt.Errorf("%w; apt-get install containernetworking-plugins, or give -upstream", err)
		}
	}
	ranges, ok := map[string]string{
		"ipv4": `[{"subnet":"10.246.0.0/16"}]`,
		"ipv6": `[{"subnet":"fd00:10:246::/64"}]`,
		"dual": `[{"subnet":"10.246.0.0/16"}],[{"subnet":"fd00:10:246::/64"}]`,
	}[o.Family]
	if !ok {
		return nil, fmt.Errorf("family %q: give ipv4, ipv6 or dual", o.Family)
	}
	ipam := func(name, routes string) string {
		return fmt.Sprintf(`{"type":"host-local","dataDir":%q,"ranges":[%s]%s}`, dir+"/node-"+name+"/ipam", ranges, routes)
	}
	variants := []*variant{{
		name: "floor",
		args: func(i int) [][2]string {
			return [][2]string{{"FLOOR_ADDR", fmt.Sprintf("10.246.%d.%d", i/200, i%200+2)}}
		},
	}, {name: "poplin"}, {name: waiting, args: podArgs}, {name: "ptp"}, {name: "bridge"}}
	poplin := func(name, more string) string {
		return `{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"poplin","mtu":1450,"capabilities":{"ips":true},` + more +
			`"nodeAddresses":["192.168.7.1","fd00:7::1"],"ipam":` + ipam(name, "") + `}]}`
	}
	confs := []string{
		`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"floor"}]}`,
		// As poplind writes them.
		poplin("poplin", ""),
		poplin(waiting, fmt.Sprintf(`"policy":{"socket":%q},"stateDir":%q,`, enforcing(dir+"/node-"+waiting).Socket(), enforcing(dir+"/node-"+waiting).StateDir())),
		`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"ptp","mtu":1450,"ipam":` +
			ipam("ptp", `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]`) + `}]}`,
		`{"cniVersion":"1.0.0","name":"pods","plugins":[{"type":"bridge","bridge":"pods","mtu":1450,"isDefaultGateway":true,"hairpinMode":true,"ipam":` +
			ipam("bridge", "") + `}]}`,
	}
	for i, v := range variants {
		var err error
		if v.list, err = cni.List(strings.ReplaceAll(confs[i], "\n", "")); err != nil {
			return nil, err
		}
		path := map[string]string{"ptp": o.Upstream, "bridge": o.Upstream}[v.name]
		if path == "" {
			path = dir
		}
		if v.node, err = cni.NewNode(dir+"/node-"+v.name, path); err != nil {
			return nil, err
		}
		if err := addresses(v.node); err != nil {
			return nil, err
		}
	}
	return variants, nil
}

// addresses gives the node the addresses its configuration names.
func addresses(n *cni.Node) error {
	lo, err := n.Link.LinkByName("lo")
	if err != nil {
		return err
	}
	for _, s := range []string{"192.168.7.1/32", "fd00:7::1/128"} {
		a, err := netlink.ParseAddr(s)
		if err != nil {
			return err
		}
		a.Flags = unix.IFA_F_NODAD
		if err := n.Link.AddrAdd(lo, a); err != nil {
			return err
		}
	}
	return nil
}

// batch calls the plugin once for each pod, width at a time. DEL is for the
// pods of the ADD before it.
func (v *variant) batch(command string, pods []*cni.Pod, width int) (*sample, error) {
	if command == "DEL" {
		v.made -= len(pods)
	}
	jobs := make(chan *libcni.RuntimeConf, len(pods))
	for _, p := range pods {
		rt := p.RuntimeConf()
		rt.ContainerID = fmt.Sprintf("%064x", v.made)
		if v.args != nil {
			rt.Args = v.args(v.made)
		}
		v.made++
		jobs <- rt
	}
	close(jobs)

	var (
		mu   sync.Mutex
		errs []error
		s    = &sample{}
		wg   sync.WaitGroup
	)
	cpu := children()
	for range width {
		wg.Go(func() {
			err := v.node.Do(func() {
				for rt := range jobs {
					took, err := v.call(command, rt)
					mu.Lock()
					s.took = append(s.took, took)
					errs = append(errs, err)
					mu.Unlock()
				}
			})
			if err != nil {
				mu.Lock()
				errs = append(errs, err)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.cpu = children() - cpu
	return s, errors.Join(errs...)
}

// call is what a runtime does for one pod, with its cache of results.
func (v *variant) call(command string, rt *libcni.RuntimeConf) (time.Duration, error) {
	start := time.Now()
	var err error
	if command == "ADD" {
		_, err = v.node.CNI.AddNetworkList(context.Background(), v.list, rt)
	} else {
		err = v.node.CNI.DelNetworkList(context.Background(), v.list, rt)
	}
	return time.Since(start), err
}

// children is the processor time of all plugins so far, with theirs.
func children() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_CHILDREN, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
