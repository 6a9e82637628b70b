package apply

import (
	"golang.org/x/sys/unix"

	"poplin.dev/poplin/plugins/wire"
)

// socket speaks rtnetlink in the network namespace it was opened in, whatever
// namespace its user is in later. Requests are written by hand and sent in
// batches: a library for all of rtnetlink costs each pod the start-up of a
// program three times the size, and sends one message at a time.
type socket struct{ *wire.Conn }

func open() (socket, error) {
	c, err := wire.Open(unix.NETLINK_ROUTE)
	return socket{c}, err
}

// do sends all messages at once. Failures are always told and success where
// asked for: the acknowledgement of the last message ends the answers.
func (s socket) do(messages ...wire.Message) (answers [][]byte, err error) {
	messages[len(messages)-1].Flags |= unix.NLM_F_ACK
	return s.Do(messages...)
}
