package daemon_test

import (
	"os"
	"slices"

	"poplin.dev/poplin/test/sockets"
)

// listeners: a daemon opens the sockets that its configuration names, and no
// port of the node when it does not serve Services.
func (m *machine) listeners() {
	t := m.t
	for _, tt := range []struct {
		conf string
		want []string
	}{
		{"", []string{"tcp 127.0.0.1:9410", "tcp 127.0.0.1:9411", "tcp [::]:10256"}},
		{"services: {enabled: false}\n", []string{"tcp 127.0.0.1:9410", "tcp 127.0.0.1:9411"}},
		{"services: {enabled: false}\nhealth: {address: \"\"}\nmetrics: {address: \"\"}\n", nil},
	} {
		m.configure(tt.conf)
		stop := m.start()
		m.until("it is ready", func() bool { return m.report().Ready })
		// The API server is in this process too.
		want := slices.Sorted(slices.Values(append(tt.want, "tcp "+m.api.Address(), "unix "+m.cfg.Socket+".new")))
		var got []string
		var err error
		m.until("it listens", func() bool {
			got, err = sockets.Listening(os.Getpid())
			return err != nil || slices.Equal(got, want) || len(got) > len(want)
		})
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: listens on %q, want %q, %v", tt.conf, got, want, err)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	}
}
