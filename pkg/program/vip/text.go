package vip

import (
	"fmt"
	"net/netip"
	"strconv"

	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/elements"
)

// Keys of maps are texts in JSON: the ones that String writes.

// MarshalText implements encoding.TextMarshaler.
func (f Front) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (f *Front) UnmarshalText(text []byte) error {
	parts, err := elements.Split(text, 3)
	if err != nil {
		return err
	}
	*f, err = parseFront(parts)
	return err
}

func parseFront(parts []string) (f Front, err error) {
	if f.Addr, err = netip.ParseAddr(parts[0]); err != nil {
		return f, err
	}
	if f.Proto, err = service.ParseProtocol(parts[1]); err != nil {
		return f, err
	}
	port, err := strconv.ParseUint(parts[2], 10, 16)
	f.Port = uint16(port)
	return f, err
}

// MarshalText implements encoding.TextMarshaler.
func (s Slot) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Slot) UnmarshalText(text []byte) error {
	parts, err := elements.Split(text, 2)
	if err != nil {
		return err
	}
	if s.Group, err = elements.ParseClassID(parts[0]); err != nil {
		return err
	}
	index, err := strconv.ParseUint(parts[1], 10, 32)
	s.Index = uint32(index)
	return err
}

// MarshalText implements encoding.TextMarshaler.
func (s Source) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (s *Source) UnmarshalText(text []byte) error {
	parts, err := elements.Split(text, 4)
	if err != nil {
		return err
	}
	if s.Front, err = parseFront(parts); err != nil {
		return err
	}
	if s.Clients, err = netip.ParsePrefix(parts[3]); err != nil {
		return fmt.Errorf("clients: %w", err)
	}
	return nil
}
