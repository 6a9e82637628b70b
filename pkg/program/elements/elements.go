// Package elements is what programs have in common whose parts are maps and
// sets of nftables: how they are written as text, and how one becomes
// another. Inputs are maps of values; it refuses to know what they mean.
package elements

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

// Write lists the elements of a map, a line each, sorted. A map whose values
// are empty structs is a set.
func Write[K interface {
	comparable
	fmt.Stringer
}, V any](b *strings.Builder, name string, m map[K]V) {
	lines := make([]string, 0, len(m))
	for k, v := range m {
		line := name + " " + k.String()
		if _, set := any(v).(struct{}); !set {
			line += fmt.Sprintf(" : %v", v)
		}
		lines = append(lines, line+"\n")
	}
	slices.Sort(lines)
	for _, l := range lines {
		b.WriteString(l)
	}
}

// Diff is what leads from one map to another. An element with another value
// is in both parts. From nothing, put is the other map itself.
func Diff[K, V comparable](from, to map[K]V) (del, put map[K]V) {
	if len(from) == 0 {
		return nil, to
	}
	del, put = map[K]V{}, map[K]V{}
	for k, v := range from {
		if w, ok := to[k]; !ok || w != v {
			del[k] = v
		}
	}
	for k, v := range to {
		if w, ok := from[k]; !ok || w != v {
			put[k] = v
		}
	}
	return del, put
}

// Both are the elements that two maps have in common.
func Both[K, V comparable](a, b map[K]V) map[K]V {
	both := map[K]V{}
	for k, v := range a {
		if w, ok := b[k]; ok && w == v {
			both[k] = v
		}
	}
	return both
}

// Apply removes and enters elements.
func Apply[K comparable, V any](m, del, put map[K]V) {
	for k := range del {
		delete(m, k)
	}
	maps.Copy(m, put)
}

// ClassID writes a number as nft writes a tc class, the type under which
// numbers pass through the kernel in a packet's priority.
func ClassID(v uint32) string { return fmt.Sprintf("%x:%x", v>>16, v&0xffff) }

// ParseClassID reads what ClassID writes.
func ParseClassID(text string) (v uint32, err error) {
	high, low, ok := strings.Cut(text, ":")
	if !ok {
		return 0, fmt.Errorf("%q is no number in two parts", text)
	}
	h, err := strconv.ParseUint(high, 16, 16)
	if err != nil {
		return 0, err
	}
	l, err := strconv.ParseUint(low, 16, 16)
	return uint32(h)<<16 | uint32(l), err
}

// Split takes a key's text apart.
func Split(text []byte, n int) ([]string, error) {
	parts := strings.Split(string(text), " . ")
	if len(parts) != n {
		return nil, fmt.Errorf("%q is not %d parts with dots between", text, n)
	}
	return parts, nil
}

// Keep copies what is wanted of a map.
func Keep[K comparable, V any](to, from map[K]V, wanted func(K) bool) {
	for k, v := range from {
		if wanted(k) {
			to[k] = v
		}
	}
}
