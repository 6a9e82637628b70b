package ends

import (
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Ports of a server. Node ports may have the same numbers.
const (
	RequestPort = 30080 // answers each byte with itself
	StreamPort  = 30081 // takes whatever comes
	PacketPort  = 30082 // counts packets
)

// Server is the far end of every way: it answers, and counts what it is given.
// What is sent to it says with its first byte where the server's thread sits.
type Server struct {
	Addr netip.Addr
	// bytes of streams and packets that were read; streams is how many there are.
	bytes, packets, streams atomic.Int64

	sockets []int
	running sync.WaitGroup
}

// Serve listens in a place, at an address of it.
func Serve(at Place, addr netip.Addr) (s *Server, err error) {
	s = &Server{Addr: addr}
	for _, p := range []struct {
		kind, port int
		run        func(int)
	}{
		{unix.SOCK_STREAM, RequestPort, s.each(echo)},
		{unix.SOCK_STREAM, StreamPort, s.each(s.swallow)},
		{unix.SOCK_DGRAM, PacketPort, s.count},
	} {
		var fd int
		in := at.Do(func() { fd, err = listen(p.kind, netip.AddrPortFrom(addr, uint16(p.port))) })
		if err := errors.Join(in, err); err != nil {
			s.Close()
			return nil, fmt.Errorf("listen on %s, port %d: %w", addr, p.port, err)
		}
		s.sockets = append(s.sockets, fd)
		s.running.Go(func() {
			runtime.LockOSThread() // never unlocked: the thread ends, with where it may run
			p.run(fd)
		})
	}
	return s, nil
}

// name is an address as sockets have it.
func name(a netip.AddrPort) (domain int, to unix.Sockaddr) {
	if a.Addr().Is4() {
		return unix.AF_INET, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}
	}
	return unix.AF_INET6, &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
}

func listen(kind int, at netip.AddrPort) (fd int, err error) {
	domain, own := name(at)
	if fd, err = unix.Socket(domain, kind|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	if err := unix.Bind(fd, own); err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	if kind == unix.SOCK_STREAM {
		err = unix.Listen(fd, 128)
	} else {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 4<<20)
	}
	if err != nil {
		return 0, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

// Close ends the server. Shutdown wakes who waits for a socket, also where it
// returns an error because nothing is connected.
func (s *Server) Close() {
	for _, fd := range s.sockets {
		_ = unix.Shutdown(fd, unix.SHUT_RDWR)
	}
	s.running.Wait()
	for _, fd := range s.sockets {
		_ = unix.Close(fd)
	}
}

// each accepts connections, one after the other.
func (s *Server) each(serve func(fd int, at *seat)) func(int) {
	return func(listener int) {
		var at seat
		for {
			fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) || errors.Is(err, unix.ECONNABORTED) {
				continue
			}
			if err != nil {
				return
			}
			serve(fd, &at)
		}
	}
}

// echo answers until the other end goes.
func echo(fd int, at *seat) {
	defer unix.Close(fd)
	if unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) != nil {
		return
	}
	data := make([]byte, 1)
	for {
		if n, err := read(fd, data); n < 1 || err != nil {
			return
		}
		at.take(data[0])
		if _, err := write(fd, data); err != nil {
			return
		}
	}
}

// swallow leaves a stream to a thread of its own.
func (s *Server) swallow(fd int, _ *seat) {
	s.streams.Add(1)
	s.running.Go(func() {
		runtime.LockOSThread() // never unlocked
		defer s.streams.Add(-1)
		defer unix.Close(fd)
		var at seat
		data := make([]byte, chunk)
		for {
			n, err := read(fd, data)
			if n < 1 || err != nil {
				return
			}
			at.take(data[0])
			s.bytes.Add(int64(n))
		}
	})
}

// count reads packets.
func (s *Server) count(fd int) {
	var at seat
	data := make([]byte, 1<<11)
	for {
		n, err := read(fd, data)
		if errors.Is(err, unix.ECONNREFUSED) {
			continue // of an answer: none are sent
		}
		if n < 1 || err != nil {
			return
		}
		at.take(data[0])
		s.packets.Add(1)
	}
}

// read is read(2), repeated where a signal has ended it.
func read(fd int, data []byte) (n int, err error) {
	for {
		if n, err = unix.Read(fd, data); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// write is write(2), repeated where a signal has ended it.
func write(fd int, data []byte) (n int, err error) {
	for {
		if n, err = unix.Write(fd, data); !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}
