// Package snapshot compares a node before and after. Input is a way to run
// commands on it; output is everything of its network and of some directories
// that a program might leave behind, a line each, and the lines in which two
// snapshots differ. It refuses to know who is to blame, and leaves out what
// changes by itself: counters, and neighbours the kernel has learnt.
package snapshot

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Snapshot is a set of lines, each with the kind of thing it is about.
type Snapshot []string

// kinds are commands for a shell; each line they print is a thing.
var kinds = []struct{ name, command string }{
	{"link", "ip -d -o link show"},
	{"address", "ip -o address show"},
	{"route", "ip -o route show table all; ip -6 -o route show table all"},
	{"rule", "ip rule show; ip -6 rule show"},
	{"neighbour", "ip neigh show nud permanent; ip neigh show proxy"},
	{"forwarding entry", "bridge fdb show"},
	{"discipline", "tc qdisc show"},
	{"nftables", "nft list ruleset"},
	{"sysctl", "grep -rs . /proc/sys/net || true"},
}

// volatile is what changes without anybody's doing.
var volatile = regexp.MustCompile(` # progname \S+|packets \d+ bytes \d+|expires \S+|/proc/sys/net/netfilter/nf_conntrack_count:\d+`)

// Take reads a node with run, which executes a command there and returns what
// it prints, and the files below some directories, by name, mode and size.
func Take(run func(command ...string) ([]byte, error), directories ...string) (Snapshot, error) {
	var all Snapshot
	add := func(kind, command string) error {
		out, err := run("sh", "-c", command)
		if err != nil {
			return fmt.Errorf("list every %s: %w", kind, err)
		}
		var table, where string
		for line := range strings.Lines(string(out)) {
			line = strings.TrimRight(volatile.ReplaceAllString(line, ""), " \n")
			// A line of nftables means something in its table and chain only.
			if kind == "nftables" {
				if strings.HasPrefix(line, "table ") {
					table, where = line+" ", ""
				} else if strings.HasSuffix(line, "{") {
					where = strings.TrimSpace(line) + " "
				}
				line = table + where + strings.TrimSpace(line)
			}
			all = append(all, kind+": "+line)
		}
		return nil
	}
	for _, k := range kinds {
		if err := add(k.name, k.command); err != nil {
			return nil, err
		}
	}
	for _, dir := range directories {
		if err := add("file", fmt.Sprintf("find %s -mindepth 1 -printf '%%p %%M %%l\\n' 2>/dev/null || true", dir)); err != nil {
			return nil, err
		}
	}
	slices.Sort(all)
	return all, nil
}

// Diff lists what is only in one of two snapshots.
func Diff(before, after Snapshot) string {
	var b strings.Builder
	for _, side := range []struct {
		sign      string
		have, not Snapshot
	}{{"- ", before, after}, {"+ ", after, before}} {
		for _, line := range side.have {
			if _, found := slices.BinarySearch(side.not, line); !found {
				b.WriteString(side.sign + line + "\n")
			}
		}
	}
	return b.String()
}
