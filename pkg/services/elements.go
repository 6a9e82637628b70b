package services

// elements is one map of the program and what has changed in it.
type elements[K, V comparable] struct {
	now map[K]V
	was map[K]*V // before the first change since take; nil: not there
}

func newElements[K, V comparable]() elements[K, V] {
	return elements[K, V]{now: map[K]V{}, was: map[K]*V{}}
}

func (e elements[K, V]) put(k K, v V) {
	if old, ok := e.now[k]; !ok || old != v {
		e.remember(k)
		e.now[k] = v
	}
}

func (e elements[K, V]) remove(k K) {
	if _, ok := e.now[k]; ok {
		e.remember(k)
		delete(e.now, k)
	}
}

func (e elements[K, V]) remember(k K) {
	if _, known := e.was[k]; known {
		return
	}
	e.was[k] = nil
	if v, ok := e.now[k]; ok {
		e.was[k] = &v
	}
}

// take moves the difference since its last call into del and put. It lets go
// of the map it read: once a whole cluster was in it, walking it costs as much
// when it is empty.
func (e *elements[K, V]) take(del, put map[K]V) {
	for k, was := range e.was {
		now, ok := e.now[k]
		if ok && was != nil && *was == now {
			continue
		}
		if was != nil {
			del[k] = *was
		}
		if ok {
			put[k] = now
		}
	}
	e.was = map[K]*V{}
}

// counted is a set whose members several Services may want.
type counted[K comparable] struct {
	elements[K, struct{}]
	wanted map[K]int
}

func newCounted[K comparable]() counted[K] {
	return counted[K]{newElements[K, struct{}](), map[K]int{}}
}

func (c counted[K]) add(k K) {
	c.wanted[k]++
	c.put(k, struct{}{})
}

func (c counted[K]) drop(k K) {
	if c.wanted[k]--; c.wanted[k] == 0 {
		delete(c.wanted, k)
		c.remove(k)
	}
}
