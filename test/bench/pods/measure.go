// Package pods measures what a pod pays for its network: CNI ADD and DEL, one
// at a time and many at once, for this plugin alone and where it waits for a
// daemon to isolate each pod, for upstream's ptp with host-local, and for the
// least a Go program can do. Inputs are options and
// upstream's plugins; outputs are figures and verdicts. It refuses to compare
// runs: what is put in relation comes from interleaved batches of one run.
package pods

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
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
	daemon, err := isolate(variants, o)
	if err != nil {
		return nil, err
	}
	defer daemon.Stop()
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
	for _, mode := range []struct {
		name  string
		width int
		batch int
	}{
		{"serial", 1, batch},
		{fmt.Sprintf("%d at once", o.Parallel), o.Parallel, 2 * o.Parallel},
	} {
		samples := map[string]*sample{}
		for turn := 0; turn*mode.batch < o.Pods+mode.batch; turn++ {
			for k := range variants {
				v := variants[(k+turn)%len(variants)]
				for _, command := range []string{"ADD", "DEL"} {
					s, err := v.batch(command, pods[:mode.batch], mode.width)
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
				rows = append(rows, samples[v.name+command].row(command, mode.name, v.name))
			}
		}
	}
	return rows, nil
}

func newVariants(o Options, dir string) ([]*variant, error) {
	if err := cni.Build(dir, "cmd/poplin", "test/bench/pods/floor"); err != nil {
		return nil, err
	}
	if _, err := os.Stat(o.Upstream + "/ptp"); err != nil {
		return nil, fmt.Errorf("%w; apt-get install containernetworking-plugins, or give -upstream", err)
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
	}, {name: "poplin"}, {name: waiting, args: podArgs}, {name: "ptp"}}
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
	}
	for i, v := range variants {
		var err error
		if v.list, err = cni.List(strings.ReplaceAll(confs[i], "\n", "")); err != nil {
			return nil, err
		}
		path := map[string]string{"ptp": o.Upstream}[v.name]
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
