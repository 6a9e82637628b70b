package cluster

import (
	"crypto/sha256"
	"fmt"
	"net"
)

// MAC is an EUI-48 address, comparable.
type MAC [6]byte

// ParseMAC reads the colon form of an EUI-48 address.
func ParseMAC(s string) (MAC, error) {
	hw, err := net.ParseMAC(s)
	if err != nil || len(hw) != 6 {
		return MAC{}, fmt.Errorf("%q is no 48-bit MAC address", s)
	}
	return MAC(hw), nil
}

func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// MACOf derives a locally administered unicast address from a name that is
// unique in the cluster. It is stable over reboots and reinstallations, so
// peers' entries stay valid.
func MACOf(identity string) MAC {
	sum := sha256.Sum256([]byte("poplin vtep " + identity))
	var m MAC
	copy(m[:], sum[:])
	m[0] = m[0]&^1 | 2
	return m
}
