package header

import "strings"

// Role says what a proxy does with a header.
type Role uint8

// The roles. What has none of its own goes from end to end.
const (
	EndToEnd Role = iota
	// Framing and direction, which a proxy writes anew.
	Host
	ContentLength
	TransferEncoding
	Connection
	// What asks for more than a message.
	Upgrade
	Expect
	Te
	// Hop ends here, Trailer too unless chunks follow.
	Hop
	Trailer
	// Claim could be taken for our word; Ours is our word, as are the five
	// after it, in which a trusted proxy is heard.
	Claim
	Ours
	ForwardedFor
	ForwardedHost
	ForwardedProto
	ForwardedPort
	RequestID
	// These go from end to end and are looked at.
	Date
	UserAgent
	Referer
	ContentType
)

// named is the roles by the length of the name, so that most headers are
// known to have none by a look at one number.
var named = func() (t [32][]struct {
	name string
	role Role
}) {
	put := func(role Role, names ...string) {
		for _, n := range names {
			t[len(n)] = append(t[len(n)], struct {
				name string
				role Role
			}{n, role})
		}
	}
	put(Host, "Host")
	put(ContentLength, "Content-Length")
	put(Expect, "Expect")
	for _, n := range hop {
		switch n {
		case "Connection":
			put(Connection, n)
		case "Transfer-Encoding":
			put(TransferEncoding, n)
		case "Upgrade":
			put(Upgrade, n)
		case "Te":
			put(Te, n)
		case "Trailer":
			put(Trailer, n)
		default:
			put(Hop, n)
		}
	}
	put(Claim, claims...)
	put(ForwardedFor, "X-Forwarded-For")
	put(ForwardedHost, "X-Forwarded-Host")
	put(ForwardedProto, "X-Forwarded-Proto")
	put(ForwardedPort, "X-Forwarded-Port")
	put(RequestID, "X-Request-Id")
	put(Ours, "X-Forwarded-Scheme", "X-Scheme", "X-Real-Ip")
	put(Date, "Date")
	put(UserAgent, "User-Agent")
	put(Referer, "Referer")
	put(ContentType, "Content-Type")
	return t
}()

// RoleOf is a header's role in a request. In an answer Claim and Ours, and
// those in which a trusted proxy is heard, are headers like any other.
func RoleOf(name string) Role {
	if len(name) < len(named) {
		for _, n := range named[len(name)] {
			if strings.EqualFold(n.name, name) {
				return n.role
			}
		}
	}
	if strings.IndexByte(name, '_') >= 0 {
		return Claim
	}
	return EndToEnd
}
