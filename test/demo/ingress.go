package main

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/cluster/api"
	"poplin.dev/poplin/test/ingress/door"
	"poplin.dev/poplin/test/ingress/traffic"
)

// edge shows the way in from outside: HTTP by the example's Ingress, then a
// page in a browser over TLS and HTTP/2.
func edge(ctx context.Context, c *cluster.Cluster, root string) error {
	say("installing poplin-ingress: web-ingress answers at a node port, to a client outside")
	d, err := door.Install(ctx, c)
	if err != nil {
		return err
	}
	if err := show(ctx, c, "-n", door.Namespace, "get", "deployment,service", door.Name); err != nil {
		return err
	}
	node, err := d.Node()
	if err != nil {
		return err
	}
	const host = "myapp.example.com"
	if err := knock(ctx, traffic.Client(d.Via(node), nil, false), "http://"+host+"/hostname", "200 web-app-"); err != nil {
		return err
	}
	fmt.Printf("$ curl -H 'Host: %s' http://%s/hostname: a web-app pod answered\n", host, d.At(node, "80"))
	say("Chromium opens https://secure.example.com with a certificate made just now")
	return page(ctx, d, filepath.Join(root, "dist/demo.png"))
}

// knock asks until the answer begins as wanted.
func knock(ctx context.Context, client *http.Client, url, want string) error {
	return api.Poll(ctx, time.Minute, url, func(context.Context) error {
		if got := traffic.Get(client, url); !strings.HasPrefix(got, want) {
			return fmt.Errorf("it answered %q", got)
		}
		return nil
	})
}

func page(ctx context.Context, d *door.Door, picture string) error {
	const host = "secure.example.com"
	cert, err := d.Secure(ctx, host, "web-service")
	if err != nil {
		return err
	}
	home, err := os.MkdirTemp("", "poplin-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(home) }()
	b, err := d.Browser(ctx, home, cert)
	if err != nil {
		return err
	}
	defer func() { _ = b.Close() }()
	return api.Poll(ctx, time.Minute, "the page", func(ctx context.Context) error {
		p, err := b.Load(ctx, "https://"+host+"/hostname")
		if err != nil {
			return err
		}
		if p.Protocol != "h2" || !strings.HasPrefix(p.Text, "web-app-") {
			return fmt.Errorf("it came over %q and shows %q", p.Protocol, p.Text)
		}
		png, err := b.Screenshot(ctx)
		if err != nil {
			return err
		}
		fmt.Printf("%s, over %s, shows %q; the window is in %s\n", p.URL, p.Protocol, p.Text, picture)
		return os.WriteFile(picture, png, 0o644)
	})
}
