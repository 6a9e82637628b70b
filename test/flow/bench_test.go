package flow

import (
	"fmt"
	"log/slog"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	applyvip "poplin.dev/poplin/pkg/apply/vip"
	"poplin.dev/poplin/pkg/cluster/service"
	"poplin.dev/poplin/pkg/program/vip"
	"poplin.dev/poplin/pkg/services"
	"poplin.dev/poplin/test/need"
	"poplin.dev/poplin/test/space"
)

// crowd is n Services with so many endpoints each, one in fifty on this node.
func crowd(n, endpoints int) []object {
	list := make([]object, n)
	for i := range list {
		o := object{Service: service.Service{
			Key: service.Key{Namespace: "crowd", Name: fmt.Sprint("s", i)}, Type: service.ClusterIP,
			ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 100, byte(i >> 8), byte(i)})},
			Ports:      []service.Port{{Name: "http", Protocol: service.TCP, Port: 80}},
		}}
		s := service.Slice{Key: o.Key, Service: o.Name, Family: 4, Ports: []service.SlicePort{{Name: "http", Protocol: service.TCP, Port: 8080}}}
		for j := range endpoints {
			k := i*endpoints + j
			s.Endpoints = append(s.Endpoints, service.Endpoint{
				Addr: netip.AddrFrom4([4]byte{10, 128 + byte(k>>16), byte(k >> 8), byte(k)}), Node: fmt.Sprint("worker-", k%50), Ready: true, Serving: true})
		}
		o.slices = []service.Slice{s}
		list[i] = o
	}
	return list
}

func tableOf(list []object) *services.Table {
	t := services.NewTable(labNode(), vip.New())
	for _, o := range list {
		t.Set(o.Service, o.slices)
	}
	return t
}

var crowds = []struct{ services, endpoints int }{{1000, 2}, {5000, 2}, {10000, 2}, {5000, 10}, {10000, 10}, {1, 1000}}

// BenchmarkCompile is from objects to elements, all Services.
func BenchmarkCompile(b *testing.B) {
	for _, c := range crowds {
		list := crowd(c.services, c.endpoints)
		b.Run(fmt.Sprintf("%dx%d", c.services, c.endpoints), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				tableOf(list).Take()
			}
		})
	}
}

func benchKernel(b *testing.B) *applyvip.Table {
	need.Root(b)
	var k *applyvip.Table
	if err := space.New(b).Do(func() (err error) {
		k, err = applyvip.Open(applyvip.Config{Log: slog.New(slog.DiscardHandler)})
		return err
	}); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { k.Close() })
	return k
}

// BenchmarkLoad is from elements to the kernel, all of them into an empty
// table.
func BenchmarkLoad(b *testing.B) {
	for _, c := range crowds {
		want := tableOf(crowd(c.services, c.endpoints)).Program()
		b.Run(fmt.Sprintf("%dx%d", c.services, c.endpoints), func(b *testing.B) {
			k := benchKernel(b)
			for b.Loop() {
				b.StopTimer()
				if err := k.Remove(); err != nil {
					b.Fatal(err)
				}
				b.StartTimer()
				if _, err := k.Set(want); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkTakeOver is what a restart costs: reading the kernel and finding
// that nothing has to change.
func BenchmarkTakeOver(b *testing.B) {
	for _, c := range crowds {
		list := crowd(c.services, c.endpoints)
		b.Run(fmt.Sprintf("%dx%d", c.services, c.endpoints), func(b *testing.B) {
			k := benchKernel(b)
			if _, err := k.Set(tableOf(list).Program()); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				k.Forget()
				before, err := k.Program()
				if err != nil {
					b.Fatal(err)
				}
				t := services.NewTable(labNode(), before)
				for _, o := range list {
					t.Set(o.Service, o.slices)
				}
				if n, err := k.Set(t.Program()); n != 0 || err != nil {
					b.Fatalf("%d elements changed, %v", n, err)
				}
			}
		})
	}
}

// BenchmarkFlip is one endpoint that becomes unready or ready: from the
// objects to the kernel's answer. The mean is the price with the collection of
// garbage in it, the median that of most changes.
func BenchmarkFlip(b *testing.B) {
	for _, c := range crowds {
		list := crowd(c.services, c.endpoints)
		b.Run(fmt.Sprintf("%dx%d", c.services, c.endpoints), func(b *testing.B) {
			k := benchKernel(b)
			t := tableOf(list)
			if err := k.Apply(t.Take()); err != nil {
				b.Fatal(err)
			}
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				o := list[(i/2)%len(list)]
				o.slices[0].Endpoints[0].Ready = i%2 == 1
				began := time.Now()
				t.Set(o.Service, o.slices)
				if err := k.Apply(t.Take()); err != nil {
					b.Fatal(err)
				}
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2]), "median-ns")
		})
	}
}

// BenchmarkVerify is a change among 10,000 Services, from being told to the
// kernel's answer, at rest and while the module looks whether everything is
// right, again and again.
func BenchmarkVerify(b *testing.B) {
	for name, every := range map[string]time.Duration{"rest": time.Hour, "verify": time.Second} {
		b.Run(name, func(b *testing.B) { benchChange(b, every) })
	}
}

func benchChange(b *testing.B, verify time.Duration) {
	list := crowd(10_000, 10)
	w := &world{complete: true, objects: map[service.Key]object{}, health: map[service.Key]services.Health{}}
	for _, o := range list {
		w.objects[o.Key] = o
	}
	l := newLab(b)
	l.kernel.Close()
	m, stop := w.run(b, l, false, verify)
	defer stop()
	<-m.Ready()
	written := func() int {
		w.mu.Lock()
		defer w.mu.Unlock()
		return w.written
	}
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		o := list[(i/2)%len(list)]
		o.slices = slices.Clone(o.slices)
		o.slices[0].Endpoints = slices.Clone(o.slices[0].Endpoints)
		o.slices[0].Endpoints[0].Ready = i%2 == 1
		before, began := written(), time.Now()
		w.put(o, "one")
		for written() == before {
			time.Sleep(50 * time.Microsecond)
		}
		took = append(took, time.Since(began))
		time.Sleep(25 * time.Millisecond) // a change after a quiet time
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "p50-us")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "most-us")
}

// BenchmarkMemory is what a table of 10,000 Services holds on to.
func BenchmarkMemory(b *testing.B) {
	for _, c := range crowds {
		b.Run(fmt.Sprintf("%dx%d", c.services, c.endpoints), func(b *testing.B) {
			list := crowd(c.services, c.endpoints)
			for b.Loop() {
				var before, after runtime.MemStats
				runtime.GC()
				runtime.ReadMemStats(&before)
				t := tableOf(list)
				t.Take()
				runtime.GC()
				runtime.ReadMemStats(&after)
				b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/1e6, "MB")
				runtime.KeepAlive(t)
			}
		})
	}
}
