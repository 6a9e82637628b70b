// Package apply makes, removes and checks what a plan says, in the host's
// network namespace (the caller's) and in the pod's. Inputs are plans and the
// path of the pod's namespace; outputs are errors that name the step. It
// refuses to touch what exists: a failed Add leaves both namespaces as they
// were.
package apply

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/poplin/plan"
	"poplin.dev/poplin/plugins/wire"
)

// ErrExists says that the attachment, or an interface of its name in the pod,
// is there already.
var ErrExists = errors.New("exists already")

// Site is where an attachment is to be made: the host's network namespace
// and a pod's.
type Site struct {
	pod  namespace
	host socket
}

// Open finds out whether an Add may succeed: netns is the path of a network
// namespace, not the host's, and no link has the host end's name.
func Open(hostLink, netns string) (s *Site, err error) {
	s = &Site{}
	if s.pod, err = openNamespace(netns); err != nil {
		return nil, err
	}
	if s.host, err = open(); err != nil {
		s.pod.close()
		return nil, err
	}
	switch _, err := s.host.link(hostLink); {
	case err == nil:
		s.Close()
		return nil, fmt.Errorf("host link %s: %w", hostLink, ErrExists)
	case !errors.Is(err, unix.ENODEV):
		s.Close()
		return nil, err
	}
	return s, nil
}

// Close ends the work at a site; what was made stays.
func (s *Site) Close() {
	s.host.Close()
	s.pod.close()
}

// Add makes p. Nothing can pass before permitted has returned without an error;
// what takes its time beforehand is done meanwhile.
//
// The link comes to be with its other end already in the pod, under its final
// name: moving or renaming a link waits for an RCU grace period, 15 ms during
// which no other pod of the node gets on. Everything later belongs to the
// link, so that deleting the link undoes it.
func (s *Site) Add(p plan.Plan, permitted func() error) (err error) {
	if err := forward(p); err != nil {
		return err
	}
	if _, err := s.host.do(createPair(p, s.pod)); errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	} else if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_, undo := s.host.do(deleteLink(p.Host.Name))
			err = errors.Join(err, undo)
		}
	}()
	index, err := makeHostEnd(s.host, p)
	if err != nil {
		return fmt.Errorf("host's end: %w", err)
	}
	var pod socket
	err = within(s.pod, func() (err error) {
		if _, err = quiet(p.Pod.Name, p); err == nil {
			pod, err = open()
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("pod's end: %w", err)
	}
	defer pod.Close()
	if err := permitted(); err != nil {
		return err
	}
	if err := openHostEnd(s.host, index, p); err != nil {
		return fmt.Errorf("host's end: %w", err)
	}
	return addPodEnd(pod, p)
}

// makeHostEnd leaves the link down, and with it the pod's end.
func makeHostEnd(host socket, p plan.Plan) (index int32, err error) {
	ipv6, err := quiet(p.Host.Name, p)
	if err == nil && ipv6 {
		err = deaf(p.Host.Name)
	}
	if err != nil {
		return 0, err
	}
	return host.configure(p.Host, ipv6)
}

func openHostEnd(host socket, index int32, p plan.Plan) error {
	steps := []wire.Message{raise(index)}
	for _, a := range p.Addresses {
		steps = append(steps, neighbour(index, a.Addr, p.Pod.MAC), hostRoute(index, a))
	}
	_, err := host.do(steps...)
	return err
}

func addPodEnd(pod socket, p plan.Plan) error {
	index, err := pod.link(p.Pod.Name)
	if err != nil {
		return fmt.Errorf("pod's end: %w", err)
	}
	steps := []wire.Message{raise(index)}
	for _, a := range p.Addresses {
		steps = append(steps, address(index, a.Addr))
	}
	for _, a := range p.Addresses {
		steps = append(steps, neighbour(index, a.Gateway, p.Host.MAC))
	}
	for _, r := range p.Routes {
		steps = append(steps, podRoute(index, r))
	}
	if _, err := pod.do(steps...); err != nil {
		return fmt.Errorf("pod's end: %w", err)
	}
	return nil
}

// Del removes the link and with it all that Add made, on both ends. It
// succeeds when there is no such link.
func Del(hostLink string) error {
	host, err := open()
	if err != nil {
		return err
	}
	defer host.Close()
	if _, err := host.do(deleteLink(hostLink)); err != nil && !errors.Is(err, unix.ENODEV) {
		return err
	}
	return nil
}

func createPair(p plan.Plan, ns namespace) wire.Message {
	m := wire.Message{What: fmt.Sprintf("make veth pair %s and %s", p.Host.Name, p.Pod.Name),
		Kind: unix.RTM_NEWLINK, Flags: unix.NLM_F_CREATE | unix.NLM_F_EXCL, Body: linkHeader(0, 0, 0)}
	linkAttrs(&m.Body, p.Host)
	m.Body.Host(unix.IFLA_GROUP, plan.LinkGroup)
	m.Body.Nest(unix.IFLA_LINKINFO, func() {
		m.Body.Bytes(unix.IFLA_INFO_KIND, []byte("veth"))
		m.Body.Nest(unix.IFLA_INFO_DATA, func() {
			m.Body.Nest(vethInfoPeer, func() {
				m.Body = append(m.Body, linkHeader(0, 0, 0)...)
				linkAttrs(&m.Body, p.Pod)
				m.Body.Host(unix.IFLA_NET_NS_FD, uint32(ns))
			})
		})
	})
	return m
}
