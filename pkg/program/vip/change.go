package vip

import "poplin.dev/poplin/pkg/program/elements"

// Change leads from one program to another. An element with another value is
// in both parts: the old one goes and the new one comes in one transaction.
type Change struct{ Delete, Put Program }

// Empty reports that a change changes nothing.
func (c Change) Empty() bool { return c.Delete.Len()+c.Put.Len() == 0 }

// Diff returns the change from old to new. Nobody must change new before it
// is made: parts of the change may be parts of it.
func Diff(from, to Program) (c Change) {
	c.Delete.Frontends, c.Put.Frontends = elements.Diff(from.Frontends, to.Frontends)
	c.Delete.Outside, c.Put.Outside = elements.Diff(from.Outside, to.Outside)
	c.Delete.Endpoints, c.Put.Endpoints = elements.Diff(from.Endpoints, to.Endpoints)
	c.Delete.Timeouts, c.Put.Timeouts = elements.Diff(from.Timeouts, to.Timeouts)
	c.Delete.Fenced, c.Put.Fenced = elements.Diff(from.Fenced, to.Fenced)
	c.Delete.Sources, c.Put.Sources = elements.Diff(from.Sources, to.Sources)
	c.Delete.Addresses, c.Put.Addresses = elements.Diff(from.Addresses, to.Addresses)
	c.Delete.Ranges, c.Put.Ranges = elements.Diff(from.Ranges, to.Ranges)
	c.Delete.Hairpins, c.Put.Hairpins = elements.Diff(from.Hairpins, to.Hairpins)
	return c
}

// Apply makes the change in p.
func (c Change) Apply(p Program) {
	elements.Apply(p.Frontends, c.Delete.Frontends, c.Put.Frontends)
	elements.Apply(p.Outside, c.Delete.Outside, c.Put.Outside)
	elements.Apply(p.Endpoints, c.Delete.Endpoints, c.Put.Endpoints)
	elements.Apply(p.Timeouts, c.Delete.Timeouts, c.Put.Timeouts)
	elements.Apply(p.Fenced, c.Delete.Fenced, c.Put.Fenced)
	elements.Apply(p.Sources, c.Delete.Sources, c.Put.Sources)
	elements.Apply(p.Addresses, c.Delete.Addresses, c.Put.Addresses)
	elements.Apply(p.Ranges, c.Delete.Ranges, c.Put.Ranges)
	elements.Apply(p.Hairpins, c.Delete.Hairpins, c.Put.Hairpins)
}

// And is what two changes have in common.
func (c Change) And(o Change) Change {
	return Change{Delete: c.Delete.and(o.Delete), Put: c.Put.and(o.Put)}
}

func (p Program) and(o Program) Program {
	return Program{
		Frontends: elements.Both(p.Frontends, o.Frontends), Outside: elements.Both(p.Outside, o.Outside),
		Endpoints: elements.Both(p.Endpoints, o.Endpoints), Timeouts: elements.Both(p.Timeouts, o.Timeouts),
		Fenced: elements.Both(p.Fenced, o.Fenced), Sources: elements.Both(p.Sources, o.Sources),
		Addresses: elements.Both(p.Addresses, o.Addresses), Ranges: elements.Both(p.Ranges, o.Ranges),
		Hairpins: elements.Both(p.Hairpins, o.Hairpins),
	}
}
