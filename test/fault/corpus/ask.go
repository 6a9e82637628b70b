package corpus

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"poplin.dev/poplin/test/thread"
)

// patience is how long an answer may take. A connection's first packet is sent
// again after a second.
const patience = 1500 * time.Millisecond

// Ends are both ends of the path as people write them: a pod's namespace and name
// or an address, and an address with a port, a Service, a URL, or a pod.
func (c *Case) Ends() (from, to string) {
	f := c.family
	address := func(a netip.Addr, port int) string { return netip.AddrPortFrom(a, uint16(port)).String() }
	pod := Namespace + "/" + c.near.client.name
	switch c.Path.Kind {
	case PodToPod:
		return pod, address(c.far.server.addrs[f], c.lab.port)
	case PodToService:
		return pod, address(c.far.vips[f], c.servicePort())
	case PodToSlice:
		return pod, address(c.far.slices[f], 80)
	case PodToName:
		return pod, "service/" + Namespace + "/" + c.values["SERVICE"] + ":80"
	case PodToAlias:
		return pod, "service/" + Namespace + "/" + c.values["ALIAS"] + ":80"
	case OutsideToPort:
		return c.values["GATEWAY"], address(c.near.addrs[f], nodePort+c.far.number)
	case OutsideToURL:
		return c.values["GATEWAY"], "http://" + c.far.host() + "/hostname"
	case OutsideToHTTPS:
		return c.values["GATEWAY"], "https://" + c.far.host() + "/hostname"
	case PodToHost:
		return pod, fmt.Sprintf("pod/%s/host-%d:%d", Namespace, c.far.number, hostNetworkPort)
	case PodToHeadless:
		return pod, fmt.Sprintf("service/%s/headless-%d", Namespace, c.far.number)
	case NodeToService:
		return "node/" + c.near.name, address(c.far.vips[f], c.servicePort())
	case OutsideToHostPort:
		return c.values["GATEWAY"], address(c.far.addrs[f], hostPort)
	case OutsideToBalancer:
		return "external", fmt.Sprintf("service/%s/balanced-%d:80", Namespace, c.far.number)
	}
	return pod, fmt.Sprintf("%s/new:%d", Namespace, c.lab.port)
}

// Family is 4 or 6.
func (c *Case) Family() int { return c.family }

// nodePort and a node's number is its server's.
const nodePort = 30040

// hostPort leads to a node's server; at hostNetworkPort a pod of the node's own
// network listens.
const hostPort, hostNetworkPort = 7900, 7901

func (c *Case) servicePort() int {
	if c.Path.UDP {
		return 81
	}
	return 80
}

// Ask sends what the case's path says, once, and wants the server's answer.
func (c *Case) Ask(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	f := c.family
	switch c.Path.Kind {
	case PodToPod:
		return c.connect(ctx, netip.AddrPortFrom(c.far.server.addrs[f], uint16(c.lab.port)))
	case PodToService:
		return c.connect(ctx, netip.AddrPortFrom(c.far.vips[f], uint16(c.servicePort())))
	case PodToSlice:
		return c.connect(ctx, netip.AddrPortFrom(c.far.slices[f], 80))
	case PodToName, PodToAlias:
		service := map[string]string{PodToName: "SERVICE", PodToAlias: "ALIAS"}[c.Path.Kind]
		return c.resolve(ctx, c.values[service], 80)
	case PodToHeadless:
		return c.resolve(ctx, fmt.Sprint("headless-", c.far.number), c.lab.port)
	case PodToHost: // its name is the node's
		return c.http(ctx, c.inside, "http://"+netip.AddrPortFrom(c.far.addrs[f], hostNetworkPort).String(), c.far.name)
	case NodeToService:
		return c.http(ctx, c.onNode, "http://"+netip.AddrPortFrom(c.far.vips[f], uint16(c.servicePort())).String(), c.far.server.name)
	case OutsideToHostPort:
		return c.http(ctx, c.outside, "http://"+netip.AddrPortFrom(c.far.addrs[f], hostPort).String(), c.far.server.name)
	case OutsideToBalancer:
		return c.http(ctx, c.outside, "http://"+netip.AddrPortFrom(c.far.balancers[f], 80).String(), c.far.server.name)
	case OutsideToPort:
		return c.http(ctx, c.outside, "http://"+netip.AddrPortFrom(c.near.addrs[f], uint16(nodePort+c.far.number)).String(), c.far.server.name)
	case OutsideToURL, OutsideToHTTPS:
		scheme := map[string]string{OutsideToURL: "http://", OutsideToHTTPS: "https://"}[c.Path.Kind]
		return c.http(ctx, c.lab.door.Via(c.near.name), scheme+c.far.host(), c.far.server.name)
	case PodToNewPod:
		return c.reachNew(ctx)
	}
	return fmt.Errorf("nobody knows how to ask from %s", c.Path.Kind)
}

// connect asks the server at an address, from the client.
func (c *Case) connect(ctx context.Context, to netip.AddrPort) error {
	if !c.Path.UDP {
		return c.http(ctx, c.inside, "http://"+to.String(), c.far.server.name)
	}
	// Large is what fills a packet of the pod network, but for a few bytes.
	request, want := "hostname", c.far.server.name
	if c.Path.Large {
		want = strings.Repeat("x", 1380)
		request = "echo " + want
	}
	return c.inClient(func() error {
		conn, err := net.DialUDP("udp", &net.UDPAddr{Port: c.source}, net.UDPAddrFromAddrPort(to))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		answer := make([]byte, 2048)
		err = conn.SetDeadline(time.Now().Add(patience / 2)) // nobody sends again
		if err == nil {
			_, err = io.WriteString(conn, request)
		}
		n := 0
		if err == nil {
			n, err = conn.Read(answer)
		}
		if err == nil && string(answer[:n]) != want {
			err = fmt.Errorf("%s answered %q", to, answer[:n])
		}
		return err
	})
}

// inClient runs do in the client's network namespace.
func (c *Case) inClient(do func() error) error {
	file, err := c.lab.cluster.Path(c.near.name, c.near.client.netns)
	if err != nil {
		return err
	}
	return thread.In(file, do)
}

type dial func(ctx context.Context, network, address string) (net.Conn, error)

func (c *Case) inside(ctx context.Context, network, address string) (net.Conn, error) {
	file, err := c.lab.cluster.Path(c.near.name, c.near.client.netns)
	if err != nil {
		return nil, err
	}
	return in(ctx, file, network, address)
}

func (c *Case) outside(ctx context.Context, network, address string) (net.Conn, error) {
	return in(ctx, c.lab.cluster.UnderlayNamespace(), network, address)
}

func (c *Case) onNode(ctx context.Context, network, address string) (net.Conn, error) {
	return in(ctx, c.lab.cluster.Namespace(c.near.name), network, address)
}

// in dials in a network namespace.
func in(ctx context.Context, namespace, network, address string) (conn net.Conn, err error) {
	err = thread.In(namespace, func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// http asks a server for its name.
func (c *Case) http(ctx context.Context, dial dial, url, want string) error {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url+"/hostname", nil)
	if err != nil {
		return err
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: c.lab.roots}}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	body, err := io.ReadAll(response.Body)
	if err == nil && (response.StatusCode != http.StatusOK || string(body) != want) {
		err = fmt.Errorf("%s answered %s %q, want %q", url, response.Status, body, want)
	}
	return err
}

// resolve asks for a Service by name in the client's container, with what its
// resolver is told.
func (c *Case) resolve(ctx context.Context, service string, port int) error {
	cmd, err := c.lab.cluster.Command(ctx, c.near.name, "nsenter", fmt.Sprintf("--target=%d", c.near.client.process), "--mount", "--net", "--",
		"curl", fmt.Sprintf("-%d", c.family), "--silent", "--show-error", "--max-time", "1.5", fmt.Sprintf("http://%s.%s.svc.cluster.local:%d/hostname", service, Namespace, port))
	if err != nil {
		return err
	}
	out, err := cmd.CombinedOutput()
	if err == nil && string(out) != c.far.server.name {
		err = errors.New("another answered")
	}
	if err != nil {
		return fmt.Errorf("ask for %s: %w: %s", service, err, out)
	}
	return nil
}

// reachNew wants a new pod on the far node to start and to answer the client.
// It is made when it is first asked for, until Forget.
func (c *Case) reachNew(ctx context.Context) error {
	// The request has its own limit; the API server and kubectl take theirs.
	api := context.WithoutCancel(ctx)
	out, err := c.lab.cluster.Kubectl(api, "-n", Namespace, "get", "pod", "new", "--ignore-not-found", "-o", "json")
	if err != nil {
		return err
	}
	if len(out) == 0 {
		if _, err = c.lab.cluster.Kubectl(api, "create", "-f", c.dir+"/new.yaml"); err != nil {
			return err
		}
		return errors.New("the pod was just made")
	}
	var pod struct {
		Status struct{ PodIPs []struct{ IP netip.Addr } }
	}
	if err := json.Unmarshal(out, &pod); err != nil {
		return err
	}
	for _, ip := range pod.Status.PodIPs {
		if family(ip.IP) == c.family {
			ctx, cancel := context.WithTimeout(api, patience)
			defer cancel()
			return c.http(ctx, c.inside, "http://"+netip.AddrPortFrom(ip.IP, uint16(c.lab.port)).String(), "new")
		}
	}
	return errors.New("the pod has no address")
}

// Forget removes what asking left.
func (c *Case) Forget(ctx context.Context) error {
	if c.Path.Kind != PodToNewPod {
		return nil
	}
	_, err := c.lab.cluster.Kubectl(ctx, "-n", Namespace, "delete", "pod", "new", "--ignore-not-found")
	return err
}
