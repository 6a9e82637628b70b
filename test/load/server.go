package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"syscall"
	"testing"
)

// Server answers each packet and each byte with itself.
type Server struct {
	// Addr is where it listens, with the same port for UDP and TCP.
	Addr netip.AddrPort

	packets     *net.UDPConn
	connections *net.TCPListener

	mu   sync.Mutex                 // guards the following
	seen map[uint64]map[uint64]bool // load, number of a packet
	met  map[uint64]bool            // loads that made a connection
	open map[net.Conn]bool
}

// Listen starts a server at an address of a place. Port 0 is one that is free.
func Listen(t testing.TB, at Place, addr netip.AddrPort) *Server {
	t.Helper()
	s := &Server{seen: map[uint64]map[uint64]bool{}, met: map[uint64]bool{}, open: map[net.Conn]bool{}}
	if err := at(func() error { return s.listen(addr) }); err != nil {
		t.Fatalf("listen on %s: %v", addr, err)
	}
	t.Cleanup(s.Close)
	enlarge(s.packets)
	go s.echoPackets()
	go s.echoConnections()
	return s
}

// listen looks for a port that is free for both protocols.
func (s *Server) listen(addr netip.AddrPort) (err error) {
	for range 10 {
		if s.connections, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr)); err != nil {
			return err
		}
		s.Addr = netip.AddrPortFrom(addr.Addr(), s.connections.Addr().(*net.TCPAddr).AddrPort().Port())
		if s.packets, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(s.Addr)); err == nil {
			return nil
		}
		s.connections.Close()
		if addr.Port() != 0 {
			return err
		}
	}
	return fmt.Errorf("find a port free for UDP and TCP: %w", err)
}

// Close ends the server and its connections.
func (s *Server) Close() {
	s.packets.Close()
	s.connections.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.open {
		c.Close()
	}
}

func (s *Server) echoPackets() {
	buf := make([]byte, 2*packetSize)
	for {
		size, from, err := s.packets.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		if id, n, ok := unpack(buf[:size]); ok {
			s.mu.Lock()
			if s.seen[id] == nil {
				s.seen[id] = map[uint64]bool{}
			}
			s.seen[id][n] = true
			s.mu.Unlock()
		}
		_, _ = s.packets.WriteToUDPAddrPort(buf[:size], from) // missed at the other end
	}
}

func (s *Server) echoConnections() {
	for {
		c, err := s.connections.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue
		}
		s.mu.Lock()
		s.open[c] = true
		s.mu.Unlock()
		go func() {
			s.echo(c)
			c.Close()
			s.mu.Lock()
			delete(s.open, c)
			s.mu.Unlock()
		}()
	}
}

// echo repeats what comes, which begins with the name of a load. What fails is
// missed at the other end.
func (s *Server) echo(c net.Conn) {
	first := make([]byte, packetSize)
	if _, err := io.ReadFull(c, first); err != nil {
		return
	}
	id, _, _ := unpack(first)
	s.mu.Lock()
	s.met[id] = true
	s.mu.Unlock()
	if _, err := c.Write(first); err == nil {
		_, _ = io.Copy(c, c)
	}
}

// visited reports whether anything of a load came here.
func (s *Server) visited(id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.met[id] || len(s.seen[id]) > 0
}

// Apart fails a test where anything of a load came to a server that is not one
// of its own.
func Apart(t testing.TB, servers []*Server, loads ...*Load) {
	t.Helper()
	for _, l := range loads {
		for _, s := range servers {
			if !slices.Contains(l.servers, s) && s.visited(l.id) {
				t.Errorf("what was sent to %s came to %s, which is another's", l.to, s.Addr)
			}
		}
	}
}

// count is how many packets of a sender came here.
func (s *Server) count(id uint64) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.seen[id])
}

// counted adds the numbers of a load's packets that came here.
func (s *Server) counted(id uint64, to map[uint64]bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n := range s.seen[id] {
		to[n] = true
	}
}

// transient errors of a UDP socket are news of an earlier packet.
func transient(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.EHOSTUNREACH) || errors.Is(err, syscall.ENETUNREACH)
}
