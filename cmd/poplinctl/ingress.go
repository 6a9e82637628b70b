package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/daemon/ingress/view"
	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/ingress/migrate"
	kube "poplin.dev/poplin/pkg/kube/ingress"
)

// ingresses shows what becomes of Ingresses.
func ingresses(ctx context.Context, args []string) error {
	if len(args) == 0 || args[0] != "status" && args[0] != "migrate" {
		return fmt.Errorf("write poplinctl ingress status or poplinctl ingress migrate")
	}
	command, controller := args[0], ingress.Controller
	if command == "migrate" {
		controller = "k8s.io/ingress-nginx"
	}
	f := flag.NewFlagSet("poplinctl ingress "+command, flag.ContinueOnError)
	kubeconfig := f.String("kubeconfig", defaultKubeconfig(), "kubeconfig `file` for the cluster")
	namespaces := f.String("namespaces", "", "`list` of namespaces to look at; none is all")
	from := f.String("controller", controller, "`name` of the controller whose IngressClasses are looked at")
	output := outputFlag(f)
	timeout := f.Duration("timeout", 20*time.Second, "how long to wait for the API server")
	if err := parse(f, args[1:], output); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, *timeout)
	defer cancel()
	k := kube.Config{Kubeconfig: *kubeconfig, Component: "poplinctl", Log: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))}
	if *namespaces != "" {
		k.Namespaces = strings.Split(*namespaces, ",")
	}
	v, err := view.Read(ctx, k, ingress.Config{Controllers: []string{*from}})
	if err != nil {
		return err
	}
	if command == "migrate" {
		reports := migrate.Reports(v.Ingresses, v.Result)
		return write(os.Stdout, *output, reports, func(w io.Writer) error { return migrate.Text(w, *from, reports) })
	}
	list := statuses(v)
	return write(os.Stdout, *output, list, func(w io.Writer) error { return ingressTable(w, list) })
}

// ingressStatus is one Ingress as its owner sees it.
type ingressStatus struct {
	Ingress      cluster.ObjectName       `json:"ingress"`
	Hosts        []string                 `json:"hosts"`
	Addresses    []cluster.IngressAddress `json:"addresses"`
	Certificates []ingress.Condition      `json:"certificates"`
	Findings     []ingress.Finding        `json:"findings"`
}

func statuses(v *view.View) []ingressStatus {
	list := []ingressStatus{}
	for _, i := range v.Ingresses {
		s := ingressStatus{Ingress: i.ObjectName, Addresses: i.Status, Certificates: v.Conditions(i.ObjectName), Findings: v.Result.Findings[i.ObjectName]}
		for _, r := range i.Rules {
			s.Hosts = append(s.Hosts, r.Host)
		}
		list = append(list, s)
	}
	return list
}

func ingressTable(w io.Writer, list []ingressStatus) error {
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintln(t, "INGRESS\tHOSTS\tADDRESSES\tFINDINGS")
	for _, s := range list {
		var addresses []string
		for _, a := range s.Addresses {
			addresses = append(addresses, a.IP+a.Hostname)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\n", s.Ingress, orDash(s.Hosts), orDash(addresses), len(s.Findings))
	}
	fmt.Fprintln(t, "\nINGRESS\tHOST\tSECRET\tVALID UNTIL\tPROBLEM")
	for _, s := range list {
		for _, c := range s.Certificates {
			until := "-"
			if !c.Until.IsZero() {
				until = c.Until.UTC().Format(time.DateTime)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", s.Ingress, c.Host, c.Secret, until, c.Problem)
		}
	}
	fmt.Fprintln(t, "\nINGRESS\tREASON\tFINDING")
	for _, s := range list {
		for _, f := range s.Findings {
			fmt.Fprintf(t, "%s\t%s\t%s\n", s.Ingress, f.Reason, f.Text)
		}
	}
	return t.Flush()
}

func orDash(list []string) string {
	if len(list) == 0 {
		return "-"
	}
	return strings.Join(list, ",")
}
