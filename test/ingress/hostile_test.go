package ingress

import (
	"crypto/tls"
	"fmt"
	"net"
	"testing"

	daemon "poplin.dev/poplin/daemon/ingress"
	"poplin.dev/poplin/test/hostile"
	"poplin.dev/poplin/test/ingress/api"
)

// TestHostileInput attacks the whole program with the configuration that
// `make bench` measures, and with net/http in front.
func TestHostileInput(t *testing.T) {
	for last, wide := range map[int]bool{61: false, 62: true} {
		t.Run(map[bool]string{false: "own", true: "net-http"}[wide], func(t *testing.T) {
			s := api.New(t)
			spy := new(hostile.Spy)
			pod(t, last+10, spy.ServeHTTP)
			s.Put(class)
			s.Put(service("default", "spy", "}}"))
			s.Put(slice("default", "spy", last+10))
			s.Put(certificateFor(t, hostile.Host).Secret("default", "crt"))
			s.Put(ingressOf("open", hostile.Host, "spy", fmt.Sprintf(`,"tls":[{"hosts":[%q],"secretName":"crt"}]`, hostile.Host)))
			s.Put(fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":"guarded"},"spec":{"ingressClassName":"poplin",
"rules":[{"host":%q,"http":{"paths":[{"path":"/public","pathType":"Prefix","backend":{"service":{"name":"spy","port":{"number":80}}}}]}}]}}`, hostile.Guarded))
			r := run(t, s, last, func(cfg *daemon.Config) { cfg.Proxy.NetHTTP = wide })
			s.Until("it is ready", r.ready)
			attack := hostile.Proxy{Spy: spy, Wide: wide, Dial: map[string]func() (net.Conn, error){
				"plain": func() (net.Conn, error) { return net.Dial("tcp", r.address+":80") },
				"TLS": func() (net.Conn, error) {
					return tls.Dial("tcp", r.address+":443", &tls.Config{InsecureSkipVerify: true, ServerName: hostile.Host})
				},
			}}
			rows, wrong := attack.Attack()
			for _, w := range wrong {
				t.Error(w)
			}
			t.Logf("%d rows, %d wrong", rows, len(wrong))
		})
	}
}
