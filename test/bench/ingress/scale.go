package main

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"poplin.dev/poplin/test/ingress/api"
)

// What thousands of hosts may cost.
const (
	hosts       = 5000
	changes     = 300
	readyTarget = 3 * time.Second
	liveTarget  = 50 * time.Millisecond
	sizeTarget  = 150 << 20
)

// many measures a controller with thousands of Ingresses, a host each.
func (l *lab) many(binary string) error {
	s := api.New(&bench{l})
	for _, o := range l.objects()[:3] {
		s.Put(o)
	}
	ingress := func(name, host string) string {
		return fmt.Sprintf(`{"apiVersion":"networking.k8s.io/v1","kind":"Ingress","metadata":{"namespace":"default","name":%q},"spec":{"ingressClassName":"poplin","rules":[{"host":%q,"http":{"paths":[{"path":"/","pathType":"Prefix","backend":{"service":{"name":"web","port":{"number":80}}}}]}}]}}`, name, host)
	}
	for i := range hosts {
		s.Put(ingress(fmt.Sprint("i", i), fmt.Sprintf("h%d.example.com", i)))
	}
	begin := time.Now()
	err := l.start("many", "0", nil, binary, "-http=10.244.0.24:80", "-https=", "-health=10.244.0.24:9411", "-metrics=", "-access-log=off", "-withdraw=1ms", "-kubeconfig="+s.Kubeconfig())
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		_, port, _ := net.SplitHostPort(address)
		return (&net.Dialer{}).DialContext(ctx, network, "10.244.0.24:"+port)
	}}}
	until := func(url string) error {
		for end := time.Now().Add(30 * time.Second); ; time.Sleep(time.Millisecond) {
			if resp, err := client.Get(url); err == nil {
				resp.Body.Close()
				if resp.StatusCode == http.StatusOK {
					return nil
				}
			}
			if time.Now().After(end) {
				return fmt.Errorf("%s does not answer", url)
			}
		}
	}
	if err := until("http://health:9411/readyz"); err != nil {
		return err
	}
	ready := time.Since(begin)
	var times []time.Duration
	for i := range changes {
		host := fmt.Sprintf("new%d.example.com", i)
		begin := time.Now()
		s.Put(ingress("i7", host))
		if err := until("http://" + host + "/small"); err != nil {
			return err
		}
		times = append(times, time.Since(begin))
	}
	slices.Sort(times)
	p99 := times[len(times)*99/100]
	size := resident(l.pids["many"])
	fmt.Printf("%d Ingresses: ready after %.2f s%s; a change is live after %.1f ms, p99 %.1f ms%s; resident %d MiB%s\n", hosts,
		ready.Seconds(), verdict(ready <= readyTarget), float64(times[len(times)/2].Microseconds())/1000, float64(p99.Microseconds())/1000, verdict(p99 <= liveTarget), size>>20, verdict(size <= sizeTarget))
	return nil
}

// resident is the memory of a process in bytes.
func resident(pid int) int {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmRSS:" {
			n, _ := strconv.Atoi(f[1])
			return n << 10
		}
	}
	return 0
}
