package corpus

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/test/live"
)

// Case is a fault of which everything has been drawn: nodes, pods, family,
// ports.
type Case struct {
	Fault
	lab       *Lab
	near, far *node
	family    int
	replica   netip.Addr // of the Ingress controller, on the near node
	source    int        // port that UDP flows come from
	values    map[string]string
	dir       string // where kubectl finds files
}

// Draw picks the ends of a fault's path.
func (l *Lab) Draw(t testing.TB, f Fault, random *rand.Rand) *Case {
	t.Helper()
	c := &Case{Fault: f, lab: l, family: f.Path.Family, source: 20000 + random.IntN(10000), dir: t.TempDir()}
	if c.family == 0 {
		c.family = []int{4, 6}[random.IntN(2)]
	}
	c.near = l.nodes[random.IntN(len(l.nodes))]
	switch f.Path.Kind {
	case OutsideToURL, OutsideToHTTPS, OutsideToPort:
		if f.Path.Kind != OutsideToPort {
			c.family = 4 // of the door's node ports
		}
		replicas, err := l.door.Replicas(t.Context())
		if err != nil || len(replicas) == 0 {
			t.Fatalf("replicas of the Ingress controller: %v, %v", replicas, err)
		}
		r := replicas[random.IntN(len(replicas))]
		for _, n := range l.nodes {
			if n.name == r.Node && f.Path.Kind != OutsideToPort {
				c.near, c.replica = n, r.Addr
			}
		}
	}
	for c.far == nil || f.Path.OtherNode && c.far == c.near || f.Path.OneNode && c.far != c.near || f.Path.Workers && (c.far.number == 1 || c.near.number == 1) {
		c.far = l.nodes[random.IntN(len(l.nodes))]
		if f.Path.Workers && c.near.number == 1 {
			c.near = l.nodes[1+random.IntN(len(l.nodes)-1)]
		}
	}
	c.values = c.draw(t)
	if err := c.write(); err != nil {
		t.Fatal(err)
	}
	return c
}

// String says what was drawn.
func (c *Case) String() string {
	return fmt.Sprintf("%s, IPv%d, near is %s, far is %s", c.Path.Kind, c.family, c.near.name, c.far.name)
}

// Value is what scripts know by a name, such as SERVER_IP.
func (c *Case) Value(name string) string { return c.values[name] }

// draw gives scripts what they may say.
func (c *Case) draw(t testing.TB) map[string]string {
	f, near, far := c.family, c.near, c.far
	v4 := f == 4
	pick := func(four, six string) string {
		if v4 {
			return four
		}
		return six
	}
	// High in a range, where no pod is.
	spare := func(n *node) netip.Addr {
		b := n.ranges[f].Addr().AsSlice()
		b[len(b)-1] = 250
		a, _ := netip.AddrFromSlice(b)
		return a
	}
	prefix, _, _ := strings.Cut(far.ranges[4].Addr().String(), ".0/")
	return map[string]string{
		"N": strconv.Itoa(far.number), "FAMILY": strconv.Itoa(f), "BITS": pick("32", "128"), "NFT": pick("ip", "ip6"), "IPTABLES": pick("iptables", "ip6tables"), "NODAD": pick("", "nodad"),
		"NEAR": near.name, "FAR": far.name, "NEAR_IP": near.addrs[4].String(), "FAR_IP": far.addrs[4].String(),
		"NEAR_RANGE": near.ranges[f].String(), "FAR_RANGE": far.ranges[f].String(), "NEAR_VTEP": near.ranges[f].Addr().String(), "FAR_VTEP": far.ranges[f].Addr().String(),
		"FAR_PREFIX": strings.TrimSuffix(prefix, ".0"), "NEAR_MAC": near.mac, "FAR_MAC": far.mac,
		"NEAR_DAEMON": strconv.Itoa(live.Daemon(t, c.lab.cluster, near.name)), "FAR_DAEMON": strconv.Itoa(live.Daemon(t, c.lab.cluster, far.name)),
		"CLIENT": near.client.name, "CLIENT_IP": near.client.addrs[f].String(), "CLIENT_LINK": near.client.link,
		"SERVER": far.server.name, "SERVER_IP": far.server.addrs[f].String(), "SERVER_LINK": far.server.link,
		"SERVER_4": far.server.addrs[4].String(), "SERVER_6": far.server.addrs[6].String(),
		"PORT": strconv.Itoa(c.lab.port), "OTHER_PORT": strconv.Itoa(c.lab.port + 1), "SOURCE_PORT": strconv.Itoa(c.source), "MTU": "1450",
		"SERVICE": far.server.name, "SLICE": fmt.Sprint("slice-", far.number), "ALIAS": fmt.Sprint("alias-", far.number), "INGRESS": far.server.name,
		"HOST": far.host(), "VIP": far.vips[f].String(), "VIP_4": far.vips[4].String(), "VIP_6": far.vips[6].String(), "REPLICA_IP": c.replica.String(),
		"SPARE_IP": spare(far).String(), "NEAR_SPARE_IP": spare(near).String(), "SPARE_ENDPOINT": netip.AddrPortFrom(spare(far), uint16(c.lab.port)).String(),
		"GATEWAY": pick("172.30.0.1", "fd00:30::1"), "POD_GATEWAY": pick("169.254.1.1", "fe80::1"), "NOBODY": "172.30.0.99",
		"ELSEWHERE": pick("198.51.100.7", "2001:db8::7"), "EVERYBODY": pick("0.0.0.0/0", "::/0"), "LOOPBACK": pick("127.0.0.1", "[::1]"),
		"WRONG_MAC": "02:00:00:00:00:99", "FORWARDING": pick("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"),
	}
}

// write puts a fault's files where kubectl finds them.
func (c *Case) write() error {
	all := map[string]string{}
	maps.Copy(all, c.files)
	for _, name := range []string{"objects.yaml", "new.yaml"} {
		text, err := files.ReadFile(name)
		if err != nil {
			return err
		}
		all[name] = string(text)
	}
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(c.dir, name), []byte(substitute(text, c.values)), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// Do runs a script.
func (c *Case) Do(ctx context.Context, steps []Step) error {
	for len(steps) > 0 {
		place, n, script := steps[0].Place, 0, ""
		for ; n < len(steps) && steps[n].Place == place; n++ {
			script += steps[n].Command + "\n"
		}
		steps = steps[n:]
		if place == untilFails {
			if err := c.Fails(ctx); err != nil {
				return err
			}
			continue
		}
		if err := c.at(ctx, place, script); err != nil {
			return fmt.Errorf("%s: at %s:\n%s%w", c.Name, place, script, err)
		}
	}
	return nil
}

// at runs a script at a place.
func (c *Case) at(ctx context.Context, place, script string) error {
	prelude, err := files.ReadFile("prelude.sh")
	if err != nil {
		return err
	}
	var cmd *exec.Cmd
	if place == "kubectl" {
		cmd, err = c.beside(ctx, script)
	} else {
		cmd, err = c.command(ctx, place, "sh", "-euc", string(prelude)+script)
	}
	if err != nil {
		return err
	}
	for k, v := range c.values {
		cmd.Env = append(cmd.Env, k+"="+v)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

// beside is a script beside the cluster, in which kubectl is the
// administrator's, in the corpus' namespace.
func (c *Case) beside(ctx context.Context, script string) (*exec.Cmd, error) {
	cmd, err := c.lab.cluster.KubectlCommand(ctx)
	if err != nil {
		return nil, err
	}
	program := strings.Join(cmd.Args, " ") + " --namespace=" + Namespace
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-euc", "kubectl() { " + program + ` "$@"; }` + "\n" + script}
	cmd.Dir = c.dir
	return cmd, nil
}

// command runs at a place, with the programs of its node; in a container, with
// the container's.
func (c *Case) command(ctx context.Context, place string, args ...string) (*exec.Cmd, error) {
	var node *node
	var enter []string
	switch place {
	case "near":
		node = c.near
	case "far":
		node = c.far
	case "client":
		node, enter = c.near, []string{"nsenter", "--net=" + c.near.client.netns}
	case "server":
		node, enter = c.far, []string{"nsenter", "--net=" + c.far.server.netns}
	case "container":
		node, enter = c.far, []string{"nsenter", fmt.Sprintf("--target=%d", c.far.server.process), "--mount", "--net", "--pid"}
	case "lan":
		args = append([]string{"--net=" + c.lab.cluster.UnderlayNamespace()}, args...)
		cmd := exec.CommandContext(ctx, "nsenter", args...)
		cmd.Env = os.Environ()
		return cmd, nil
	}
	return c.lab.cluster.Command(ctx, node.name, append(enter, args...)...)
}

// Works waits until the traffic is answered, twice in a row.
func (c *Case) Works(ctx context.Context) error {
	return until(ctx, 60*time.Second, func() error { return errors.Join(c.Ask(ctx), c.Ask(ctx)) })
}

// Fails waits until the traffic is not answered any more, however often.
func (c *Case) Fails(ctx context.Context) error {
	for limit := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		if !c.answeredOnce(ctx) {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(limit) {
			return errors.New("the traffic is answered")
		}
	}
}

// answeredOnce asks several times, at once where nothing forbids it.
func (c *Case) answeredOnce(ctx context.Context) bool {
	if c.Path.UDP || c.Path.Kind == PodToNewPod { // one port, one pod
		for begin, n := time.Now(), 0; n < 3 || time.Since(begin) < c.long(); n++ {
			if c.Ask(ctx) == nil {
				return true
			}
		}
		return false
	}
	const attempts = 4
	answers := make(chan error)
	for range attempts {
		go func() { answers <- c.Ask(ctx) }()
	}
	once := false
	for range attempts {
		once = <-answers == nil || once
	}
	return once
}

// long is how long the traffic has to fail: a new pod takes its time to start.
func (c *Case) long() time.Duration {
	if c.Path.Kind == PodToNewPod {
		return 5 * time.Second
	}
	return 0
}

func until(ctx context.Context, limit time.Duration, check func() error) error {
	for deadline := time.Now().Add(limit); ; time.Sleep(20 * time.Millisecond) {
		err := check()
		if err == nil {
			return nil
		}
		if ctx.Err() != nil || time.Now().After(deadline) {
			return fmt.Errorf("not within %v: %w", limit, err)
		}
	}
}
