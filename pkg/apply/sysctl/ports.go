package sysctl

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"poplin.dev/poplin/pkg/program"
)

// Sysctls about the ports that the kernel gives to sockets which ask for none.
const (
	portRange     = "ipv4/ip_local_port_range"
	reservedPorts = "ipv4/ip_local_reserved_ports"
)

// Reserve keeps the kernel from giving ports to sockets that ask for none. What
// is reserved stays so: a port too many costs nothing, and nobody can tell who
// else reserved it.
func (t Tree) Reserve(ports []uint16) error {
	text, err := t.read(portRange)
	if err != nil {
		return err
	}
	var low, high int
	if _, err := fmt.Sscan(text, &low, &high); err != nil {
		return fmt.Errorf("read sysctl net/%s: %q: %w", portRange, text, err)
	}
	text, err = t.read(reservedPorts)
	if err != nil {
		return err
	}
	reserved, err := parsePorts(text)
	if err != nil {
		return fmt.Errorf("read sysctl net/%s: %w", reservedPorts, err)
	}
	before := len(reserved)
	for _, p := range ports {
		if n := int(p); low <= n && n <= high {
			reserved[n] = true
		}
	}
	if len(reserved) == before {
		return nil
	}
	_, err = t.set(program.Sysctl{Key: reservedPorts, Value: formatPorts(reserved), Shared: true})
	return err
}

// parsePorts reads a list such as 8080,9000-9010.
func parsePorts(text string) (map[int]bool, error) {
	ports := map[int]bool{}
	for part := range strings.SplitSeq(text, ",") {
		if part == "" {
			continue
		}
		from, to, isRange := strings.Cut(part, "-")
		if !isRange {
			to = from
		}
		low, err1 := strconv.ParseUint(from, 10, 16)
		high, err2 := strconv.ParseUint(to, 10, 16)
		if err1 != nil || err2 != nil {
			return nil, fmt.Errorf("%q is no list of ports", text)
		}
		for n := low; n <= high; n++ {
			ports[int(n)] = true
		}
	}
	return ports, nil
}

func formatPorts(ports map[int]bool) string {
	var parts []string
	sorted := slices.Sorted(maps.Keys(ports))
	for i := 0; i < len(sorted); {
		j := i
		for j+1 < len(sorted) && sorted[j+1] == sorted[j]+1 {
			j++
		}
		part := strconv.Itoa(sorted[i])
		if j > i {
			part += "-" + strconv.Itoa(sorted[j])
		}
		parts = append(parts, part)
		i = j + 1
	}
	return strings.Join(parts, ",")
}
