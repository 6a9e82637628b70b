package hostile

import (
	"fmt"
	"strings"
)

// Forged is an address that a client claims to be.
const Forged = "6.6.6.6"

// outcome is the answers' status codes, and what the back end saw.
type outcome struct{ answers, seen string }

// row is bytes and what becomes of them.
type row struct {
	what, send string
	narrow     outcome
	wide       *outcome // by net/http, where it differs
}

const (
	host     = "Host: " + Host + "\r\n"
	chunked  = "Transfer-Encoding: chunked\r\n"
	smuggled = "GET /smuggled HTTP/1.1\r\n" + host + "\r\n"
	last     = "0\r\n\r\n"
)

func get(path string) string { return "GET " + path + " HTTP/1.1\r\n" + host + "\r\n" }

// with is a GET with headers, at adds a path.
func with(headers string) string { return at("/a", headers) }
func at(path, headers string) string {
	return "GET " + path + " HTTP/1.1\r\n" + host + headers + "\r\n"
}
func post(headers, body string) string {
	return "POST /a HTTP/1.1\r\n" + host + headers + "\r\n" + body
}
func guarded(path string) string         { return "GET " + path + " HTTP/1.1\r\nHost: " + Guarded + "\r\n\r\n" }
func refused(what, send, s string) row   { return row{what, send, outcome{s, ""}, nil} }
func served(what, send, seen string) row { return row{what, send, outcome{"200", seen}, nil} }

// either is narrow here, and has a meaning there.
func either(what, send, s, wide, seen string) row {
	return row{what, send, outcome{s, ""}, &outcome{wide, seen}}
}

// all is every row.
func all() []row {
	return append(append(append(lengths(), chunks()...), heads()...), routes()...)
}

func lengths() []row {
	return []row{
		served("nothing wrong", post("Content-Length: 3\r\n", "abc"), "POST /a [abc]"),
		{"two requests in a row", get("/a") + get("/b"), outcome{"200 200", "GET /a [], GET /b []"}, nil},
		either("a length and a coding", post("Content-Length: 6\r\n"+chunked, last+"X"), "400", "200", "POST /a []"),
		// What follows the chunks is a request, to a reader of chunks.
		either("a coding and a length", post(chunked+"Content-Length: 6\r\n", last+smuggled), "400", "200 200", "POST /a [], GET /smuggled []"),
		refused("two lengths", post("Content-Length: 0\r\nContent-Length: 44\r\n", smuggled), "400"),
		either("two equal lengths", post("Content-Length: 3\r\nContent-Length: 3\r\n", "abc"), "400", "200", "POST /a [abc]"),
		refused("a list of lengths", post("Content-Length: 3, 3\r\n", "abc"), "400"),
		refused("a signed length", post("Content-Length: +3\r\n", "abc"), "400"),
		refused("a huge length", post("Content-Length: 99999999999999999999\r\n", ""), "400"),
		refused("an unknown coding", post("Transfer-Encoding: cow\r\n", smuggled), "501"),
		refused("chunked twice", post(chunked+chunked, last), "501"),
		refused("chunked among others", post("Transfer-Encoding: gzip, chunked\r\n", last), "501"),
		refused("a disguised coding", post("Transfer-Encoding: \x0bchunked\r\n", last), "400"),
		refused("a space before the colon", post("Transfer-Encoding : chunked\r\n", last), "400"),
		either("a folded coding", post("Transfer-Encoding:\r\n chunked\r\n", last), "400", "200", "POST /a []"),
		either("HTTP/1.0 with a coding", "POST /a HTTP/1.0\r\n"+host+chunked+"\r\n"+last, "400", "200", "POST /a []"),
		served("a body on GET is a body", at("/a", fmt.Sprintf("Content-Length: %d\r\n", len(smuggled)))+smuggled, "GET /a ["+smuggled+"]"),
	}
}

func chunks() []row {
	return []row{
		served("extensions", post(chunked, "1;evil=\"x\"\r\nA\r\n0;more\r\n\r\n"), "POST /a [A]"),
		refused("a bare line feed after an extension", post(chunked, "1;x\nA\r\n"+last), "400"),
		refused("a bare line feed after the size", post(chunked, "1\nA\r\n"+last), "400"),
		refused("a chunk that ends late", post(chunked, "1\r\nABC\r\n"+last), "400"),
		refused("a negative chunk", post(chunked, "-1\r\n\r\n"), "400"),
		refused("a chunk of 2^64", post(chunked, "10000000000000000\r\n\r\n"), "400"),
		refused("extensions without end", post(chunked, "1;"+strings.Repeat("x", 100<<10)+"\r\nA\r\n"+last), "400"),
		refused("a header hidden in a chunk's line", post(chunked, "1;a\rb\r\nA\r\n"+last), "400"),
		served("a trailer of our words", post(chunked, "1\r\nA\r\n0\r\nX-Forwarded-For: "+Forged+"\r\n\r\n"), "POST /a [A]"),
	}
}

func heads() []row {
	const folded = "X-A: b\r\n " + "c\r\n"
	return []row{
		either("bare line feeds", "GET /a HTTP/1.1\nHost: "+Host+"\n\n", "400", "200", "GET /a []"),
		either("a bare line feed in a header", with("X-A: b\nX-B: c\r\n"), "400", "200", "GET /a []"),
		either("a folded header", with(folded), "400", "200", "GET /a []"),
		refused("a bare carriage return", with("X-A: b\rX-B: c\r\n"), "400"),
		refused("a null byte", with("X-A: b\x00\r\n"), "400"),
		refused("a header of 40 kB", with("X-A: "+strings.Repeat("x", 40<<10)+"\r\n"), "431"),
		refused("headers of 40 kB", with(strings.Repeat("X-A: yz\r\n", 4500)), "431"),
		refused("a path of 40 kB", get("/"+strings.Repeat("x", 40<<10)), "431"),
		refused("a line of HTTP/0.9", "GET /a\r\n"+host+"\r\n", "400"),
		refused("another version", "GET /a HTTP/3.0\r\n"+host+"\r\n", "505"),
		refused("two hosts", with(host), "400"),
		refused("no host", "GET /a HTTP/1.1\r\n\r\n", "400"),
		refused("a host with a user", "GET /a HTTP/1.1\r\nHost: x@"+Host+"\r\n\r\n", "400"),
		refused("a host with a path", "GET /a HTTP/1.1\r\nHost: "+Host+"/x\r\n\r\n", "400"),
		served("the names of our words in Connection", with("Connection: X-Forwarded-For, X-Real-Ip, x-forwarded-proto, X-Forwarded-Host, X-Hop\r\nX-Hop: 1\r\n"), "GET /a []"),
		served("our words forged", with("X-Forwarded-For: "+Forged+"\r\nX-Real-Ip: "+Forged+"\r\nForwarded: for="+Forged+"\r\nX_Real_IP: "+Forged+"\r\nX-Original-URL: /"+Forged+"\r\n"), "GET /a []"),
		{"an upgrade to h2c", with("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n") + "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", outcome{"200 400", "GET /a []"}, nil},
		served("an upgrade that Connection does not name", with("Upgrade: websocket\r\n"), "GET /a []"),
		refused("a tunnel", "CONNECT "+Host+":443 HTTP/1.1\r\n"+host+"\r\n", "405"),
		refused("TRACE", "TRACE /a HTTP/1.1\r\n"+host+"\r\n", "405"),
	}
}

func routes() []row {
	return []row{
		{"what is public", guarded("/public/x"), outcome{"200", "GET /public/x []"}, nil},
		refused("dots", guarded("/public/../private"), "404"),
		refused("escaped dots", guarded("/public/%2e%2e/private"), "404"),
		refused("a dot and an escaped one", guarded("/public/.%2E/private"), "404"),
		refused("an escaped slash", guarded("/public/..%2fprivate"), "400"),
		refused("an escaped backslash", guarded("/public/..%5cprivate"), "400"),
		refused("a backslash", guarded("/public\\..\\private"), "400"),
		refused("parameters", guarded("/public/..;/private"), "400"),
		refused("two slashes", guarded("//private"), "404"),
		refused("a null byte in the path", guarded("/public/%00"), "400"),
		refused("half an escape", guarded("/public/%2"), "400"),
		{"a question mark that is escaped", guarded("/public/%3f/../../private"), outcome{"404", ""}, nil},
		{"line ends in the path", guarded("/public/%0d%0aX:%20y"), outcome{"200", "GET /public/%0D%0AX:%20y []"}, nil},
		refused("the host in the target holds", "GET http://"+Guarded+"/private HTTP/1.1\r\n"+host+"\r\n", "404"),
	}
}
