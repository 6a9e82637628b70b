package apply

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestMessage(t *testing.T) {
	m := message{kind: unix.RTM_NEWLINK}
	m.attrString(unix.IFLA_IFNAME, "eth0")
	m.nest(unix.IFLA_LINKINFO, func() { m.attr(unix.IFLA_INFO_KIND, []byte("veth")); m.attr32(9, 7) })
	found := attrs(m.body)
	if got := string(found[unix.IFLA_IFNAME]); got != "eth0\x00" {
		t.Errorf("name %q", got)
	}
	inner := attrs(found[unix.IFLA_LINKINFO])
	if string(inner[unix.IFLA_INFO_KIND]) != "veth" || number(inner[9]) != 7 {
		t.Errorf("nested %v", inner)
	}
	b := m.append(nil, 5)
	if got, rest := cut(b); len(got) != len(b) || len(rest) != 0 || native.Uint32(b[8:]) != 5 {
		t.Errorf("message %v", b)
	}
}

func TestFailure(t *testing.T) {
	m := message{kind: unix.NLMSG_ERROR, flags: unix.NLM_F_ACK_TLVS}
	m.body = native.AppendUint32(nil, uint32(0x100000000-uint64(unix.EINVAL)))
	m.body = append(m.body, make([]byte, unix.SizeofNlMsghdr)...)
	m.attrString(unix.NLMSGERR_ATTR_MSG, "Invalid prefsrc address")
	err := failure(m.append(nil, 1))
	if !errors.Is(err, unix.EINVAL) || err.Error() != "invalid argument (Invalid prefsrc address)" {
		t.Errorf("got %v", err)
	}
	m.body = m.body[:4]
	if err := failure(m.append(nil, 1)); !errors.Is(err, unix.EINVAL) {
		t.Errorf("without explanation: %v", err)
	}
	m.body = make([]byte, 4)
	if err := failure(m.append(nil, 1)); err != nil {
		t.Errorf("acknowledgement: %v", err)
	}
}

func FuzzAnswers(f *testing.F) {
	m := message{kind: unix.RTM_NEWLINK, body: linkHeader(2, 0, 0)}
	m.attrString(unix.IFLA_IFNAME, "eth0")
	f.Add(m.append(nil, 1))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(t *testing.T, datagram []byte) {
		for rounds := 0; len(datagram) >= unix.SizeofNlMsghdr; rounds++ {
			var one []byte
			one, datagram = cut(datagram)
			_ = failure(one)
			_, _ = readLink([][]byte{one[unix.SizeofNlMsghdr:]})
			if rounds > 1<<16 {
				t.Fatal("no end")
			}
		}
	})
}
