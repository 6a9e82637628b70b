package forge

import (
	"maps"
	"net"
	"sync"
	"testing"
)

// Hear counts the packets that arrive at a UDP port, whatever their address,
// by their text. at runs a function in the network namespace of the port.
func Hear(t testing.TB, at func(func() error) error, port uint16) (heard func() map[string]int) {
	t.Helper()
	var c *net.UDPConn
	if err := at(func() (err error) {
		c, err = net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	var mu sync.Mutex
	seen := map[string]int{}
	go func() {
		buf := make([]byte, 2048)
		for {
			n, _, err := c.ReadFromUDP(buf)
			if err != nil {
				return
			}
			mu.Lock()
			seen[string(buf[:n])]++
			mu.Unlock()
		}
	}()
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		return maps.Clone(seen)
	}
}
