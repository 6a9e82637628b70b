//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"poplin.dev/poplin/test/await"
	"poplin.dev/poplin/test/browser"
	"poplin.dev/poplin/test/cluster"
	"poplin.dev/poplin/test/live"
	"poplin.dev/poplin/test/need"
)

// pageUI is `poplinctl ui`, open in a browser.
type pageUI struct {
	*browser.Browser
	t *testing.T
	// base is its address without the key.
	base string
	// stop ends the command as Ctrl-C does.
	stop func()
}

// openUI starts both on one node, where the command finds the API server.
func openUI(t *testing.T, c *cluster.Cluster) *pageUI {
	t.Helper()
	need.Program(t, "chromedriver", "chromium-driver")
	cmd := live.Poplinctl(context.WithoutCancel(t.Context()), t, c, "ui")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &pageUI{t: t}
	ended := false
	p.stop = func() {
		t.Helper()
		if ended {
			return
		}
		ended = true
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Error(err)
		}
		timer := time.AfterFunc(20*time.Second, func() { _ = cmd.Process.Kill() })
		defer timer.Stop()
		if err := cmd.Wait(); err != nil {
			t.Errorf("after Ctrl-C: %v", err)
		}
	}
	t.Cleanup(p.stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	url := strings.TrimSpace(line)
	base, key, found := strings.Cut(url, "#key=")
	if err != nil || !found || key == "" {
		t.Fatalf("poplinctl ui said %q, %v", line, err)
	}
	p.base = base
	p.Browser, err = browser.Start(t.Context(), browser.Options{Namespace: c.Namespace("worker-1"), Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := p.Resize(t.Context(), 1500, 950); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Load(t.Context(), url); err != nil {
		t.Fatal(err)
	}
	return p
}

// run runs a script in the page.
func (p *pageUI) run(into any, script string, args ...any) {
	p.t.Helper()
	for i, a := range args {
		text, err := json.Marshal(a)
		if err != nil {
			p.t.Fatal(err)
		}
		args[i] = string(text)
	}
	if err := p.Run(p.t.Context(), fmt.Sprintf(script, args...), into); err != nil {
		p.t.Fatal(err)
	}
}

// drawn is what the page shows of a trace.
type drawn struct {
	Notes, Verdict, Cause, Cure string
	// Lines are "from > to status", Things "id status" of cards.
	Lines, Things []string
	// Colour is that of the border around what is broken.
	Colour string
}

// trace fills in the form and sends it, as a person does.
func (p *pageUI) trace(from, to string) (d drawn) {
	p.t.Helper()
	p.run(nil, `document.body.dataset.traced = "";
		document.getElementById("from").value = %s; document.getElementById("to").value = %s; document.getElementById("go").click()`, from, to)
	await.Success(p.t, 30*time.Second, func() error {
		var done string
		if p.run(&done, `return document.body.dataset.traced`); done != "yes" {
			return fmt.Errorf("no answer to a trace from %s to %s", from, to)
		}
		return nil
	})
	p.run(&d, `const verdict = document.getElementById("verdict"), broken = document.querySelector(".thing[data-status=BROKEN]");
		return {
			Notes: document.getElementById("notes").innerText, Verdict: verdict?.dataset.status ?? "",
			Cause: verdict?.querySelector("p")?.innerText ?? "", Cure: verdict?.querySelector("code")?.innerText ?? "",
			Lines: [...document.querySelectorAll("#lines path[data-status]")].map((l) => l.dataset.from + " > " + l.dataset.to + " " + l.dataset.status),
			Things: [...document.querySelectorAll(".thing[data-status]")].map((l) => l.dataset.id + " " + l.dataset.status),
			Colour: broken ? getComputedStyle(broken).borderTopColor : "",
		}`)
	return d
}

// TestUI: the page in Chromium shows the cluster's nodes, pods, Services,
// Ingresses and policies, draws a way that is whole and one that is broken, and
// asks nobody but the program that serves it. Its picture is kept as dist/ui.png.
func TestUI(t *testing.T) {
	c, _ := entrance(t)
	live.Inspect(t, c)
	patch := func(port int) {
		t.Helper()
		text := fmt.Sprintf(`[{"op":"replace","path":"/spec/ports/0/targetPort","value":%d}]`, port)
		if _, err := c.Kubectl(context.WithoutCancel(t.Context()), "patch", "service", "web-service", "--type=json", "-p", text); err != nil {
			t.Fatal(err)
		}
	}
	policy := filepath.Join(t.TempDir(), "policy.yaml")
	if err := os.WriteFile(policy, []byte("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: web-only}\n"+
		"spec: {podSelector: {matchLabels: {app: web-app}}, ingress: [{ports: [{port: 8080}]}]}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Kubectl(t.Context(), "apply", "-f", policy); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := c.Kubectl(context.WithoutCancel(t.Context()), "delete", "networkpolicy", "web-only"); err != nil {
			t.Error(err)
		}
	})
	p := openUI(t, c)
	p.shows(c)
	p.keepsToItself()

	pods := example(t, c)
	from, way := "", []string{}
	for _, x := range pods {
		if strings.HasPrefix(x.Name, "probe") {
			from = "pod/default/" + x.Name
		} else {
			way = append(way, "service/default/web-service > pod/default/"+x.Name)
		}
	}
	way = append(way, from+" > service/default/web-service")
	const to = "service/web-service:80"
	whole := func(d drawn) error {
		var want []string
		for _, w := range way {
			want = append(want, w+" OK")
		}
		slices.Sort(want)
		slices.Sort(d.Lines)
		if d.Verdict != "OK" || !slices.Equal(d.Lines, want) || d.Colour != "" || d.Notes != "" {
			return fmt.Errorf("%+v\nwant OK on all of %q", d, want)
		}
		return nil
	}
	await.Success(t, 30*time.Second, func() error { return whole(p.trace(from, to)) })
	p.picture("ui-whole.png")

	// From outside through the Ingress: to its controller, and from there on.
	seen := p.trace("", "http://"+host+"/")
	lines := strings.Join(seen.Lines, "\n")
	if seen.Verdict != "OK" || !strings.Contains(lines, "external > service/poplin-system/poplin-ingress OK") || !strings.Contains(lines, " > ingress/default/web-ingress OK") {
		t.Errorf("by the Ingress: %+v", seen)
	}

	patch(8081)
	t.Cleanup(func() { patch(8080) })
	await.Success(t, 30*time.Second, func() error {
		seen = p.trace(from, to)
		if seen.Verdict != "BROKEN" || !slices.Contains(seen.Things, "service/default/web-service BROKEN") || !slices.Contains(seen.Lines, from+" > service/default/web-service BROKEN") {
			return fmt.Errorf("with a wrong target port: %+v", seen)
		}
		return nil
	})
	var red, green, blue int
	if _, err := fmt.Sscanf(seen.Colour, "rgb(%d, %d, %d)", &red, &green, &blue); err != nil || red < 150 || red < 3*green || red < 3*blue {
		t.Errorf("what is broken is not red but %s", seen.Colour)
	}
	if !strings.Contains(seen.Cause, "Hop service: ") || !strings.Contains(seen.Cause, "8081") || !strings.HasPrefix(seen.Cure, "kubectl ") {
		t.Errorf("why, and what mends it: %+v", seen)
	}
	p.picture("ui.png")

	if seen := p.trace("pod/nobody", to); !strings.Contains(seen.Notes, "there is no pod default/nobody") {
		t.Errorf("%+v", seen)
	}
	p.stop()
	var after string
	p.run(&after, `return fetch("/").then(() => "it answers", () => "gone")`)
	if after != "gone" {
		t.Error("after Ctrl-C " + after)
	}
}

// shows compares the page with the cluster.
func (p *pageUI) shows(c *cluster.Cluster) {
	p.t.Helper()
	await.Success(p.t, 30*time.Second, func() error {
		var want, got []string
		for kind, resource := range map[string]string{"node": "nodes", "pod": "pods", "service": "services", "ingress": "ingresses", "policy": "networkpolicies"} {
			var list struct {
				Items []struct {
					Metadata struct{ Namespace, Name string }
					Status   struct{ Phase string }
				}
			}
			get(p.t, c, &list, "-A", resource)
			for _, i := range list.Items {
				if i.Status.Phase != "Succeeded" && i.Status.Phase != "Failed" {
					want = append(want, filepath.Join(kind, i.Metadata.Namespace, i.Metadata.Name))
				}
			}
		}
		p.run(&got, `const box = document.getElementById("namespace");
			box.value = ""; box.dispatchEvent(new Event("change")); document.querySelectorAll(".more").forEach((b) => b.click());
			return [...document.querySelectorAll("[data-id]")].map((c) => c.dataset.id)`)
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(got, want) {
			return fmt.Errorf("the page shows %q\nwant %q", got, want)
		}
		return nil
	})
	var lines []string
	p.run(&lines, `return [...document.querySelectorAll("#lines path")].map((l) => l.dataset.from + " > " + l.dataset.to)`)
	if !slices.Contains(lines, "ingress/default/web-ingress > service/default/web-service") {
		p.t.Errorf("lines are %q", lines)
	}
	// The keyboard moves, and chooses.
	var chosen string
	p.run(&chosen, `const first = document.querySelector("#services [data-id]"); first.focus();
		first.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowDown", bubbles: true }));
		const second = document.activeElement; second.click();
		const title = document.querySelector("#panel h3").innerText; second.click();
		return second !== first && second.title === title ? "yes" : title`)
	if chosen != "yes" {
		p.t.Errorf("the arrow key leads to %q", chosen)
	}
	p.run(nil, `const box = document.getElementById("namespace"); box.value = "-"; box.dispatchEvent(new Event("change"))`)
}

// keepsToItself: the key is out of sight, nothing is loaded from elsewhere,
// the policy of the page's content is in force, and without the key there is
// no answer.
func (p *pageUI) keepsToItself() {
	p.t.Helper()
	var got struct {
		Address, Script   string
		Foreign           []string
		Keyless, Changing int
	}
	p.run(&got, `const s = document.createElement("script"); s.textContent = "window.injected = true"; document.body.append(s);
		return Promise.all([fetch("api/graph"), fetch("api/graph", { method: "POST" })]).then(([keyless, changing]) => ({
			Address: location.href, Script: window.injected ? "it ran" : "",
			Foreign: performance.getEntriesByType("resource").map((r) => r.name).filter((n) => !n.startsWith(location.origin)),
			Keyless: keyless.status, Changing: changing.status,
		}))`)
	if got.Address != p.base || got.Script != "" || len(got.Foreign) > 0 || got.Keyless != http.StatusUnauthorized || got.Changing != http.StatusMethodNotAllowed {
		p.t.Errorf("%+v", got)
	}
}

// picture keeps what the window shows.
func (p *pageUI) picture(name string) {
	p.t.Helper()
	png, err := p.Screenshot(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	root, err := cluster.ProjectRoot()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dist", name), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
