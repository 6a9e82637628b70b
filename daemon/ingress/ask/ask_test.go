package ask_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"poplin.dev/poplin/daemon/ingress/ask"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/program/web"
)

// TestHere: a replica says what it serves and how it was started, and nothing of
// a key.
func TestHere(t *testing.T) {
	certificate := &web.Certificate{
		Secret:      cluster.ObjectName{Namespace: "shop", Name: "tls"},
		Certificate: tls.Certificate{Certificate: [][]byte{[]byte("certificate")}, PrivateKey: "key"},
	}
	pod := fmt.Sprint("test-", os.Getpid())
	settings := ask.Settings{Compile: ingress.Config{Controllers: []string{"a"}, DefaultCertificate: certificate.Secret}, Namespaces: []string{"shop"}}
	s := ask.New(ask.Deps{
		Pod: pod, Settings: settings, Log: slog.New(slog.DiscardHandler),
		Program: func() *web.Program { return &web.Program{DefaultCertificate: certificate} },
	})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var a ask.Answer
	var err error
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(time.Millisecond) {
		if a, err = ask.Here(pod, facts.Visit{TLS: true, Host: "a.example.com", Path: "/"}); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	// sha256sum of "certificate"
	want := facts.Served{Status: 404, Secret: "shop/tls", Fingerprint: "03d66dd08835c1ca3f128cceacd1f31ac94163096b20f445ae84285bc0832d72"}
	if !reflect.DeepEqual(a, ask.Answer{Settings: settings, Served: want}) {
		t.Errorf("%+v", a)
	}
	text, _ := json.Marshal(a)
	if strings.Contains(string(text), "key") {
		t.Errorf("a key is told: %s", text)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := ask.Here(pod, facts.Visit{}); err == nil || !strings.Contains(err.Error(), pod) {
		t.Errorf("of one that has ended: %v", err)
	}
}
