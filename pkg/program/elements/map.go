package elements

// Map is one map of a program and what has changed in it since it was last
// asked.
type Map[K, V comparable] struct {
	now map[K]V
	// was is what was there before the first change since Take, a nil
	// pointer where nothing was. Before the first Take there is no such map.
	was map[K]*V
}

// NewMap returns an empty map.
func NewMap[K, V comparable]() Map[K, V] {
	return Map[K, V]{now: map[K]V{}}
}

// Now is what the map holds. The caller must not change it.
func (m Map[K, V]) Now() map[K]V { return m.now }

// Put enters an element, in place of another of the same key.
func (m Map[K, V]) Put(k K, v V) {
	if old, ok := m.now[k]; !ok || old != v {
		m.remember(k)
		m.now[k] = v
	}
}

// Remove takes an element out.
func (m Map[K, V]) Remove(k K) {
	if _, ok := m.now[k]; ok {
		m.remember(k)
		delete(m.now, k)
	}
}

func (m Map[K, V]) remember(k K) {
	if _, known := m.was[k]; known || m.was == nil {
		return
	}
	m.was[k] = nil
	if v, ok := m.now[k]; ok {
		m.was[k] = &v
	}
}

// Take returns the difference since its last call, as Diff does. It lets go
// of the map it reads: one that was large costs as much to walk when it is
// empty.
func (m *Map[K, V]) Take() (del, put map[K]V) {
	was := m.was
	m.was = map[K]*V{}
	switch {
	case was == nil:
		return nil, m.now
	case len(was) == 0:
		return nil, nil
	}
	del, put = map[K]V{}, map[K]V{}
	for k, before := range was {
		now, ok := m.now[k]
		if ok && before != nil && *before == now {
			continue
		}
		if before != nil {
			del[k] = *before
		}
		if ok {
			put[k] = now
		}
	}
	return del, put
}

// Counted is a set whose members several may want.
type Counted[K comparable] struct {
	Map[K, struct{}]
	wanted map[K]int
}

// NewCounted returns an empty set.
func NewCounted[K comparable]() Counted[K] {
	return Counted[K]{NewMap[K, struct{}](), map[K]int{}}
}

// Add wants a member once more.
func (c Counted[K]) Add(k K) {
	c.wanted[k]++
	c.Put(k, struct{}{})
}

// Drop wants a member once less; with the last it is out.
func (c Counted[K]) Drop(k K) {
	if c.wanted[k]--; c.wanted[k] == 0 {
		delete(c.wanted, k)
		c.Remove(k)
	}
}
