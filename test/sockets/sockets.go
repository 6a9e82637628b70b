// Package sockets lists where a process listens. Input is its process id;
// output is the addresses, as the kernel has them. It refuses to guess from
// ports: a socket counts when the process has it open.
package sockets

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Listening are the sockets of a process that take connections or datagrams
// from anybody: "tcp 127.0.0.1:80", "udp [::]:53", "unix /run/x.sock", "raw".
func Listening(pid int) ([]string, error) {
	open, err := inodes(pid)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, table := range []struct {
		name  string
		parse func(fields []string) (inode, text string)
	}{
		{"tcp", inet("tcp", "0A")}, {"tcp6", inet("tcp", "0A")},
		// 07 is a datagram socket that is not connected.
		{"udp", inet("udp", "07")}, {"udp6", inet("udp", "07")},
		{"raw", inet("raw", "")}, {"raw6", inet("raw", "")},
		{"packet", packet}, {"unix", unix},
	} {
		file, err := os.Open(fmt.Sprintf("/proc/%d/net/%s", pid, table.name))
		if err != nil {
			return nil, err
		}
		lines := bufio.NewScanner(file)
		lines.Scan() // the header
		for lines.Scan() {
			if inode, text := table.parse(strings.Fields(lines.Text())); open[inode] {
				list = append(list, text)
			}
		}
		_ = file.Close()
		if err := lines.Err(); err != nil {
			return nil, err
		}
	}
	slices.Sort(list)
	return list, nil
}

func inodes(pid int) (map[string]bool, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || files == nil {
		return nil, fmt.Errorf("process %d has no files open, %w", pid, err)
	}
	open := map[string]bool{}
	for _, f := range files {
		to, _ := os.Readlink(f) // may be closed meanwhile
		if inode, ok := strings.CutPrefix(to, "socket:["); ok {
			open[strings.TrimSuffix(inode, "]")] = true
		}
	}
	return open, nil
}

// inet reads a line of proc_pid_net(5)'s tcp and its like, in one state, or
// in any.
func inet(protocol, state string) func([]string) (inode, text string) {
	return func(f []string) (string, string) {
		if len(f) < 10 || state != "" && f[3] != state {
			return "", ""
		}
		return f[9], protocol + " " + address(f[1]).String()
	}
}

// address reads HEX:PORT, whose words are in the machine's order; little
// endian is what our machines have.
func address(text string) netip.AddrPort {
	host, port, _ := strings.Cut(text, ":")
	b, _ := hex.DecodeString(host)
	for i := 0; i+4 <= len(b); i += 4 {
		slices.Reverse(b[i : i+4])
	}
	addr, _ := netip.AddrFromSlice(b)
	n, _ := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(addr, uint16(n))
}

func packet(f []string) (inode, text string) {
	if len(f) < 9 {
		return "", ""
	}
	return f[8], "packet"
}

// unix takes what was told to listen (flag 0x10000) and has a name.
func unix(f []string) (inode, text string) {
	if len(f) < 8 || f[3] != "00010000" {
		return "", ""
	}
	return f[6], "unix " + f[7]
}
