// Package diff compares what the kernel holds with what it should hold and
// walks the difference. Inputs are two maps and the functions that write one
// item; outputs are a Pass, with what was changed and what failed, and the first
// map brought up to what is now true. It refuses to know what an item is.
package diff

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
)

// Result counts what a pass changed.
type Result struct {
	Added, Changed, Removed, Failed int
}

// Plus adds up two results.
func (r Result) Plus(o Result) Result {
	return Result{
		Added:   r.Added + o.Added,
		Changed: r.Changed + o.Changed,
		Removed: r.Removed + o.Removed,
		Failed:  r.Failed + o.Failed,
	}
}

// Zero reports that nothing was changed and nothing failed.
func (r Result) Zero() bool { return r == Result{} }

// Cause is how it was noticed that somebody else had changed what a pass puts
// right. Empty, the pass followed a change of the cluster's.
type Cause string

// An event of the kernel told, it was time to look, or a sysctl differed.
const (
	Event   Cause = "event"
	Look    Cause = "look"
	Setting Cause = "sysctl"
)

// Pass is one walk over the differences: what became of each item.
type Pass struct {
	Result
	errs []error
}

// Err joins what went wrong.
func (p *Pass) Err() error { return errors.Join(p.errs...) }

// Write does something about an item and calls done when it is known what became
// of it: at once, or when the requests that were gathered have been sent.
type Write[K, V any] func(k K, v V, done func(error))

// Now is a Write that knows at once.
func Now[K, V any](write func(K, V) error) Write[K, V] {
	return func(k K, v V, done func(error)) { done(write(k, v)) }
}

// Put writes every item of want that have lacks or holds with another value.
// A failed item does not stop the others: items are independent, and one bad
// peer must not cost the good ones their routes. Items are written in the
// order of their keys' text, so that logs and tests are stable. have is
// updated item by item, because it must be true also after an error.
func Put[K keyed, V comparable](p *Pass, have, want map[K]V, add, change Write[K, V]) {
	for _, k := range missing(want, func(k K, v V) bool { old, ok := have[k]; return ok && old == v }) {
		v := want[k]
		write, count := add, &p.Added
		if _, ok := have[k]; ok {
			write, count = change, &p.Changed
		}
		write(k, v, func(err error) {
			if p.done(err, count) {
				have[k] = v
			}
		})
	}
}

// Remove deletes every item of have that want lacks. Callers put every kind
// of item before they remove any: what replaces something is there first.
func Remove[K keyed, V comparable](p *Pass, have, want map[K]V, remove Write[K, V]) {
	for _, k := range missing(have, func(k K, _ V) bool { _, ok := want[k]; return ok }) {
		remove(k, have[k], func(err error) {
			if p.done(err, &p.Removed) {
				delete(have, k)
			}
		})
	}
}

func (p *Pass) done(err error, count *int) (ok bool) {
	if err != nil {
		p.Failed++
		p.errs = append(p.errs, err)
		return false
	}
	*count++
	return true
}

// keyed is what identifies an item: comparable for the map, text for the order.
type keyed interface {
	comparable
	fmt.Stringer
}

// missing lists the keys of m for which there is nothing to be done is false, in a stable order.
func missing[K keyed, V any](m map[K]V, done func(K, V) bool) []K {
	type named struct {
		key  K
		text string
	}
	var list []named
	for k, v := range m {
		if !done(k, v) {
			list = append(list, named{k, k.String()})
		}
	}
	slices.SortFunc(list, func(a, b named) int { return cmp.Compare(a.text, b.text) })
	keys := make([]K, len(list))
	for i, n := range list {
		keys[i] = n.key
	}
	return keys
}
