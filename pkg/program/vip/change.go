package vip

import "maps"

// Change leads from one program to another. An element with another value is
// in both parts: the old one goes and the new one comes in one transaction.
type Change struct{ Delete, Put Program }

// NoChange returns a change to add to.
func NoChange() Change { return Change{Delete: New(), Put: New()} }

// Empty reports that a change changes nothing.
func (c Change) Empty() bool { return c.Delete.Len()+c.Put.Len() == 0 }

// Diff returns the change from old to new.
func Diff(from, to Program) Change {
	c := NoChange()
	diff(from.Frontends, to.Frontends, c.Delete.Frontends, c.Put.Frontends)
	diff(from.Outside, to.Outside, c.Delete.Outside, c.Put.Outside)
	diff(from.Endpoints, to.Endpoints, c.Delete.Endpoints, c.Put.Endpoints)
	diff(from.Timeouts, to.Timeouts, c.Delete.Timeouts, c.Put.Timeouts)
	diff(from.Fenced, to.Fenced, c.Delete.Fenced, c.Put.Fenced)
	diff(from.Sources, to.Sources, c.Delete.Sources, c.Put.Sources)
	diff(from.Addresses, to.Addresses, c.Delete.Addresses, c.Put.Addresses)
	diff(from.Ranges, to.Ranges, c.Delete.Ranges, c.Put.Ranges)
	diff(from.Hairpins, to.Hairpins, c.Delete.Hairpins, c.Put.Hairpins)
	return c
}

func diff[K, V comparable](from, to, del, put map[K]V) {
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
}

// Apply makes the change in p.
func (c Change) Apply(p Program) {
	apply(p.Frontends, c.Delete.Frontends, c.Put.Frontends)
	apply(p.Outside, c.Delete.Outside, c.Put.Outside)
	apply(p.Endpoints, c.Delete.Endpoints, c.Put.Endpoints)
	apply(p.Timeouts, c.Delete.Timeouts, c.Put.Timeouts)
	apply(p.Fenced, c.Delete.Fenced, c.Put.Fenced)
	apply(p.Sources, c.Delete.Sources, c.Put.Sources)
	apply(p.Addresses, c.Delete.Addresses, c.Put.Addresses)
	apply(p.Ranges, c.Delete.Ranges, c.Put.Ranges)
	apply(p.Hairpins, c.Delete.Hairpins, c.Put.Hairpins)
}

func apply[K comparable, V any](m, del, put map[K]V) {
	for k := range del {
		delete(m, k)
	}
	maps.Copy(m, put)
}
