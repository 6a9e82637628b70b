package wire

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttrs(t *testing.T) {
	var w Attrs
	w.Text(1, "eth0")
	w.Nest(2, func() { w.Net(3, 7); w.Host(4, 9) })
	if got := string(Find(w, 1)); got != "eth0\x00" {
		t.Errorf("text %q", got)
	}
	if got := Find(w, 2, 3); !bytes.Equal(got, []byte{0, 0, 0, 7}) {
		t.Errorf("number %v", got)
	}
	if Find(w, 2, 5) != nil || Find(w, 6, 1) != nil {
		t.Error("found what is not there")
	}
}

func TestFailure(t *testing.T) {
	m := Message{Kind: unix.NLMSG_ERROR, Flags: unix.NLM_F_ACK_TLVS}
	m.Body = native.AppendUint32(nil, uint32(0x100000000-uint64(unix.EINVAL)))
	m.Body = append(m.Body, make([]byte, unix.SizeofNlMsghdr)...)
	m.Body.Text(unix.NLMSGERR_ATTR_MSG, "Invalid prefsrc address")
	err := failure(m.append(nil, 1))
	if !errors.Is(err, unix.EINVAL) || err.Error() != "invalid argument (Invalid prefsrc address)" {
		t.Errorf("got %v", err)
	}
	m.Body = m.Body[:4]
	if err := failure(m.append(nil, 1)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("without explanation: %v", err)
	}
	m.Body = make([]byte, 4)
	if err := failure(m.append(nil, 1)); err != nil {
		t.Errorf("acknowledgement: %v", err)
	}
}

// TestErrorsSayWhatFailed, of all that is sent at once.
func TestErrorsSayWhatFailed(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	find := func(name string) Message {
		m := Message{What: "find " + name, Kind: unix.RTM_GETLINK, Body: make(Attrs, unix.SizeofIfInfomsg)}
		m.Body.Text(unix.IFLA_IFNAME, name)
		return m
	}
	last := find("lo")
	last.Flags = unix.NLM_F_ACK
	for range 2 { // what the first left unread does not disturb the second
		answers, err := c.Do(find("lo"), find("no-such-link"), last)
		if !errors.Is(err, unix.ENODEV) || err.Error() != "find no-such-link: no such device" || len(answers) != 2 {
			t.Errorf("%d answers, %v", len(answers), err)
		}
	}
}

// FuzzFind reads what no kernel sends.
func FuzzFind(f *testing.F) {
	f.Add([]byte{8, 0, 1, 0, 4, 0, 2, 0})
	f.Add([]byte{3, 0, 1, 0})
	f.Add([]byte{255, 255, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if found := Find(b, 1, 2); len(found) > len(b) {
			t.Errorf("found %d bytes in %d", len(found), len(b))
		}
		if len(b) >= 16 {
			if m, rest := cut(b); len(m)+len(rest) > len(b) {
				t.Errorf("cut %d bytes into %d and %d", len(b), len(m), len(rest))
			}
			_ = failure(b)
		}
	})
}
