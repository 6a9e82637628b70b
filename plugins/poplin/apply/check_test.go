package apply

import (
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzLink reads what no kernel sends.
func FuzzLink(f *testing.F) {
	w := linkHeader(2, 0, 0)
	w.Text(unix.IFLA_IFNAME, "eth0")
	w.Host(unix.IFLA_MTU, 1450)
	f.Add([]byte(w))
	f.Add([]byte{16, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := readLink([][]byte{b})
		if (err == nil) != (len(b) >= unix.SizeofIfInfomsg) || len(l.name)+len(l.alias) > len(b) {
			t.Fatalf("%+v, %v", l, err)
		}
	})
}
