// Package decode reads objects of the API that come as protobuf, field by
// field, into what stays of them: a start on a large cluster reads a hundred
// megabytes, most of which (managed fields, references, status) nobody needs.
// Inputs are messages; outputs are calls with their fields. The numbers of the
// fields are the API's, which never change: generated.proto of k8s.io/api and
// k8s.io/apimachinery. It refuses nothing but damaged messages.
package decode

import (
	"net/netip"
	"unique"

	"google.golang.org/protobuf/encoding/protowire"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"poplin.dev/poplin/pkg/cluster/service"
)

// ContentType is asked for and sent.
const ContentType = "application/vnd.kubernetes.protobuf"

// Field is one of a message: Number is set for varints, Text for the rest.
type Field struct {
	ID     protowire.Number
	Text   []byte
	Number uint64
}

// Flag is a boolean.
func (f Field) Flag() bool { return f.Number != 0 }

// Port is a number that has to fit a port; 0, which is none, if it does not.
func (f Field) Port() uint16 {
	if f.Number > 65535 {
		return 0
	}
	return uint16(f.Number)
}

// Name keeps one copy of what many objects say, such as the name of a node.
func (f Field) Name() string { return unique.Make(string(f.Text)).Value() }

// Address is invalid for text that is no address: the compiler names it.
func (f Field) Address() netip.Addr {
	a, _ := netip.ParseAddr(string(f.Text))
	return a
}

// Protocol is 0 for one that has no ports.
func (f Field) Protocol() service.Protocol {
	switch string(f.Text) {
	case "TCP", "":
		return service.TCP
	case "UDP":
		return service.UDP
	case "SCTP":
		return service.SCTP
	}
	return 0
}

// Each calls do for every field of a message.
func Each(b []byte, do func(Field) error) error {
	for len(b) > 0 {
		id, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		f := Field{ID: id}
		switch kind {
		case protowire.VarintType:
			f.Number, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			f.Text, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(id, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if err := do(f); err != nil {
			return err
		}
	}
	return nil
}

// Meta is what a watch needs of an object, whatever its kind.
type Meta struct {
	metav1.TypeMeta
	metav1.ObjectMeta
}

// Key names the object.
func (m Meta) Key() service.Key { return service.Key{Namespace: m.Namespace, Name: m.Name} }

// Copy is independent of m.
func (m Meta) Copy() Meta { return Meta{m.TypeMeta, *m.ObjectMeta.DeepCopy()} }

// Read reads an ObjectMeta, with the labels and annotations to be kept.
func (m *Meta) Read(b []byte, labels, annotations func(name string) bool) error {
	return Each(b, func(f Field) error {
		switch f.ID {
		case 1:
			m.Name = string(f.Text)
		case 3:
			m.Namespace = f.Name()
		case 5:
			m.UID = types.UID(f.Text)
		case 6:
			m.ResourceVersion = string(f.Text)
		case 8:
			return m.CreationTimestamp.Unmarshal(f.Text)
		case 11:
			return Entry(f.Text, &m.Labels, labels)
		case 12:
			return Entry(f.Text, &m.Annotations, func(name string) bool {
				return name == metav1.InitialEventsAnnotationKey || annotations(name)
			})
		}
		return nil
	})
}

// Entry reads one entry of a map of texts, if it is to be kept.
func Entry(b []byte, to *map[string]string, keep func(name string) bool) error {
	var k, v Field
	err := Each(b, func(f Field) error {
		switch f.ID {
		case 1:
			k = f
		case 2:
			v = f
		}
		return nil
	})
	if err != nil || !keep(string(k.Text)) {
		return err
	}
	if *to == nil {
		*to = map[string]string{}
	}
	(*to)[k.Name()] = v.Name()
	return nil
}

// List is a list of one kind.
type List[T any, P interface {
	*T
	Unmarshal(b []byte) error
}] struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []T
}

// Unmarshal reads a list.
func (l *List[T, P]) Unmarshal(b []byte) error {
	return Each(b, func(f Field) error {
		switch f.ID {
		case 1:
			return l.ListMeta.Unmarshal(f.Text)
		case 2:
			l.Items = append(l.Items, *new(T))
			return P(&l.Items[len(l.Items)-1]).Unmarshal(f.Text)
		}
		return nil
	})
}

// Reset readies a list for Unmarshal.
func (l *List[T, P]) Reset() { *l = List[T, P]{} }

// DeepCopyObject implements runtime.Object. Nobody writes to an item.
func (l *List[T, P]) DeepCopyObject() runtime.Object {
	return &List[T, P]{l.TypeMeta, *l.ListMeta.DeepCopy(), append([]T(nil), l.Items...)}
}
