// Package hostport lets ports of the node lead to pods. Inputs are an
// attachment and its plan; outputs are a file that says so and the kernel's
// rules. What the files say of attachments whose link exists is what the
// kernel holds, whoever looks last: ADD, DEL, or the node's daemon. So an
// entry whose DEL never came ends with the pod's link, and never leads to the
// next pod with that address. It refuses a host port that another pod has.
//
// A pod without host ports costs one system call when it is deleted.
package hostport

import (
	"errors"
	"fmt"
	"slices"

	"poplin.dev/poplin/plugins/hostport/apply"
	"poplin.dev/poplin/plugins/hostport/plan"
	"poplin.dev/poplin/plugins/hostport/store"
	"poplin.dev/poplin/plugins/wire"
)

// ConflictError says that another pod has a host port.
type ConflictError struct {
	Element plan.Element
	Pod     string
}

func (e *ConflictError) Error() string {
	return fmt.Sprintf("host port %s is %s's", e.Element, e.Pod)
}

// SaveError says that the entry could not be saved: nothing has changed.
type SaveError struct{ Err error }

func (e *SaveError) Error() string { return e.Err.Error() }
func (e *SaveError) Unwrap() error { return e.Err }

// Add gives an attachment, whose link exists, its host ports. They are saved
// before they are in the kernel: after a crash between the two a DEL finds
// them.
func Add(dir string, mine store.Entry) (err error) {
	if len(mine.Elements) == 0 {
		return nil
	}
	d, err := store.Open(dir)
	if err != nil {
		return &SaveError{err}
	}
	defer d.Close()
	k, err := apply.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	others, gone, _, err := survey(d, mine.Link)
	if err != nil {
		return err
	}
	for _, o := range others {
		if e, taken := plan.Conflict(mine.Elements, o.Elements); taken {
			return &ConflictError{e, o.String()}
		}
	}
	if err := d.Save(mine); err != nil {
		return &SaveError{err}
	}
	if err := set(d, k, append(others, mine), gone, mine.Elements); err != nil {
		return errors.Join(err, d.Remove(mine.Link))
	}
	return nil
}

// Del ends an attachment's host ports; one that has none has ended.
func Del(dir, link string) error {
	if !store.Has(dir, link) {
		return nil
	}
	d, ok, err := store.OpenExisting(dir)
	if !ok {
		return err
	}
	defer d.Close()
	k, err := apply.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	others, gone, _, err := survey(d, link)
	if err != nil {
		return err
	}
	return set(d, k, others, gone, nil)
}

// Check says how file or kernel differ from the attachment's plan.
func Check(dir string, mine store.Entry) error {
	if len(mine.Elements) == 0 {
		return nil
	}
	d, ok, err := store.OpenExisting(dir)
	if err != nil {
		return err
	}
	saved := false
	if ok {
		defer d.Close()
		list, _, err := d.List()
		if err != nil {
			return err
		}
		saved = slices.ContainsFunc(list, func(e store.Entry) bool {
			return e.Link == mine.Link && slices.Equal(e.Elements, mine.Elements)
		})
	}
	if !saved {
		return fmt.Errorf("host ports %v are not saved in %s", mine.Elements, dir)
	}
	k, err := apply.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	return k.Check(mine.Elements)
}

// Sweep drops what has ended.
func Sweep(dir string) error {
	k, err := apply.Open()
	if err != nil {
		return err
	}
	defer k.Close()
	_, err = Sync(dir, k)
	return err
}

// Sync makes the kernel hold what the files say, and drops what has ended.
// damaged names files that say nothing.
func Sync(dir string, k *apply.Kernel) (damaged, err error) {
	d, ok, err := store.OpenExisting(dir)
	if !ok {
		return nil, err
	}
	defer d.Close()
	live, gone, damaged, err := survey(d, "")
	if err != nil {
		return damaged, err
	}
	return damaged, set(d, k, live, gone, nil)
}

// survey tells the entries whose link exists from those that have ended; that
// of the link named is neither or has ended, because its owner says so.
func survey(d store.Dir, named string) (live, gone []store.Entry, damaged, err error) {
	list, damaged, err := d.List()
	if err != nil {
		return nil, nil, damaged, err
	}
	for _, e := range list {
		index, err := wire.Index(e.Link)
		if err != nil {
			return nil, nil, damaged, err
		}
		if index != 0 && e.Link != named {
			live = append(live, e)
		} else {
			gone = append(gone, e)
		}
	}
	return live, gone, damaged, nil
}

// set is the one order: kernel, flows, files. A crash in between leaves files
// that lead to it being done again.
func set(d store.Dir, k *apply.Kernel, live, gone []store.Entry, begun []plan.Element) error {
	if err := k.Set(all(live)); err != nil {
		return err
	}
	if err := k.EndUDP(all(gone), begun); err != nil {
		return err
	}
	var errs []error
	for _, e := range gone {
		if !slices.ContainsFunc(live, func(l store.Entry) bool { return l.Link == e.Link }) {
			errs = append(errs, d.Remove(e.Link))
		}
	}
	return errors.Join(errs...)
}

func all(entries []store.Entry) (list []plan.Element) {
	for _, e := range entries {
		list = append(list, e.Elements...)
	}
	return list
}
