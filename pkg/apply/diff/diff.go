// Package diff compares what the kernel holds with what it should hold and
// walks the difference. Inputs are two maps and the functions that write one
// item; outputs are a Result, the errors joined, and the first map brought up
// to what is now true. It refuses to know what an item is.
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

// Put writes every item of want that have lacks or holds with another value.
// A failed item does not stop the others: items are independent, and one bad
// peer must not cost the good ones their routes. Items are written in the
// order of their keys' text, so that logs and tests are stable. have is
// updated item by item, because it must be true also after an error.
func Put[K keyed, V comparable](have, want map[K]V, add, change func(K, V) error) (Result, error) {
	var (
		res  Result
		errs []error
	)
	for _, k := range missing(want, func(k K, v V) bool { old, ok := have[k]; return ok && old == v }) {
		v := want[k]
		write, count := add, &res.Added
		if _, ok := have[k]; ok {
			write, count = change, &res.Changed
		}
		if err := write(k, v); err != nil {
			res.Failed++
			errs = append(errs, err)
			continue
		}
		have[k] = v
		*count++
	}
	return res, errors.Join(errs...)
}

// Remove deletes every item of have that want lacks. Callers put every kind
// of item before they remove any: what replaces something is there first.
func Remove[K keyed, V comparable](have, want map[K]V, remove func(K, V) error) (Result, error) {
	var (
		res  Result
		errs []error
	)
	for _, k := range missing(have, func(k K, _ V) bool { _, ok := want[k]; return ok }) {
		if err := remove(k, have[k]); err != nil {
			res.Failed++
			errs = append(errs, err)
			continue
		}
		delete(have, k)
		res.Removed++
	}
	return res, errors.Join(errs...)
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
