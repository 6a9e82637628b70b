package view

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/ingress"
)

// Status is one Ingress as its owner sees it.
type Status struct {
	Ingress      cluster.ObjectName       `json:"ingress"`
	Hosts        []string                 `json:"hosts"`
	Addresses    []cluster.IngressAddress `json:"addresses"`
	Certificates []ingress.Condition      `json:"certificates"`
	Findings     []ingress.Finding        `json:"findings"`
}

// Statuses are those of all Ingresses, in their order.
func (v *View) Statuses() []Status {
	list := []Status{}
	for _, i := range v.Ingresses {
		s := Status{Ingress: i.ObjectName, Addresses: i.Status, Certificates: v.Conditions(i.ObjectName), Findings: v.Result.Findings[i.ObjectName]}
		for _, r := range i.Rules {
			s.Hosts = append(s.Hosts, r.Host)
		}
		list = append(list, s)
	}
	return list
}

// Text is three tables for people: Ingresses, certificates, findings.
func Text(w io.Writer, list []Status) error {
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
