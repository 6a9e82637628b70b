// Package privilege says which of root's rights this process has. There is no
// input; output is the names of its capabilities. It refuses to change them:
// the manifest gives them.
package privilege

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// names of the capabilities that Poplin knows a use for.
var names = map[int]string{unix.CAP_NET_ADMIN: "NET_ADMIN", unix.CAP_NET_RAW: "NET_RAW", unix.CAP_SYS_ADMIN: "SYS_ADMIN"}

// Capabilities are those in effect, by the kernel's numbers where they have no
// business here.
func Capabilities() ([]string, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return nil, fmt.Errorf("read capabilities: %w", err)
	}
	var list []string
	for i := range 64 {
		if data[i/32].Effective&(1<<(i%32)) == 0 {
			continue
		}
		name, known := names[i]
		if !known {
			name = fmt.Sprint("CAP_", i)
		}
		list = append(list, name)
	}
	return list, nil
}
