// Package ask is how a replica of the Ingress controller tells what it serves: on
// a socket without a file, as its image has no place for one, to a process of the
// same user in its own container, which is started by pods/exec. So RBAC decides
// who may ask, and no port is opened. Inputs are a visit and the replica's table;
// output is what becomes of it. It refuses to tell anything of a key, and to talk
// to another user.
package ask

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
	"time"

	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/loop"
	"poplin.dev/poplin/pkg/program/web"
	"poplin.dev/poplin/pkg/trace"
)

// patience is with the other end.
const patience = 2 * time.Second

// Settings are those of a replica that decide about its table.
type Settings struct {
	Compile    ingress.Config `json:"compile"`
	Namespaces []string       `json:"namespaces,omitempty"`
}

// Answer is what a replica says.
type Answer struct {
	Settings Settings     `json:"settings"`
	Served   facts.Served `json:"served"`
}

// Deps is all the server uses.
type Deps struct {
	// Pod is the replica's; without one nobody can ask.
	Pod      string
	Settings Settings
	Program  func() *web.Program
	Log      *slog.Logger
}

// Server answers; it implements loop.Task.
type Server struct {
	deps  Deps
	ready *loop.Ready
}

// New makes the server.
func New(deps Deps) *Server { return &Server{deps: deps, ready: loop.NewReady()} }

// Ready implements loop.Task.
func (s *Server) Ready() <-chan struct{} { return s.ready.Done() }

// String implements loop.Task.
func (s *Server) String() string { return "questions" }

// Run implements loop.Task. That it cannot listen costs explanations, and no
// request.
func (s *Server) Run(ctx context.Context) error {
	s.ready.Set()
	if s.deps.Pod == "" {
		<-ctx.Done()
		return nil
	}
	l, err := net.Listen("unix", address(s.deps.Pod))
	if err != nil {
		s.deps.Log.Warn("nobody can ask what is served", "error", err)
		<-ctx.Done()
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	for {
		conn, err := l.Accept()
		if err != nil {
			return nil // it was closed
		}
		if err := s.answer(conn); err != nil {
			s.deps.Log.Debug("cannot answer", "error", err)
		}
	}
}

// answer serves one after another: a question takes microseconds.
func (s *Server) answer(conn net.Conn) error {
	defer conn.Close()
	if err := same(conn); err != nil {
		return err
	}
	var v facts.Visit
	if err := json.NewDecoder(conn).Decode(&v); err != nil {
		return err
	}
	return json.NewEncoder(conn).Encode(Answer{s.deps.Settings, trace.Served(s.deps.Program(), v)})
}

// Here asks the replica of this container.
func Here(pod string, v facts.Visit) (a Answer, err error) {
	conn, err := net.Dial("unix", address(pod))
	if err != nil {
		return a, fmt.Errorf("ask poplin-ingress of pod %s: %w", pod, err)
	}
	defer conn.Close()
	if err := same(conn); err != nil {
		return a, err
	}
	if err := json.NewEncoder(conn).Encode(v); err != nil {
		return a, fmt.Errorf("ask poplin-ingress of pod %s: %w", pod, err)
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("read the answer of poplin-ingress of pod %s: %w", pod, err)
	}
	return a, nil
}

// address is in the namespace of the network: where that is the node's, pods'
// names tell replicas apart.
func address(pod string) string { return "@poplin-ingress/" + pod }

// same refuses another user at the other end, and one who takes too long.
func same(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		peer, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if int(peer.Uid) != os.Getuid() {
		return fmt.Errorf("user %d is at the other end of the socket, and this is user %d", peer.Uid, os.Getuid())
	}
	return nil
}
