package proxy

// room is what most exchanges need of their goroutine's stack.
const room = 5 << 10

// makeRoom has the runtime enlarge the goroutine's stack once, while it holds
// little. net/http begins a goroutine for every HTTP/2 request, and a stack
// that is doubled whenever it is full is copied each time. The size of this
// function's frame is what does it: n is 0, and nothing is written there.
//
//go:noinline
func makeRoom(n int) byte {
	if n == 0 {
		return 0
	}
	var frame [room]byte
	frame[n%room] = byte(n)
	return frame[n*n%room]
}
