package cluster

import (
	"strings"
	"testing"
)

func TestOptions(t *testing.T) {
	o, err := Options{}.complete()
	if err != nil || o.Name != "poplin" || o.Nodes != 3 || o.Family != "dual" || o.Network != "poplin" || o.Proxy != "poplin" {
		t.Errorf("defaults: %+v, %v", o, err)
	}
	for want, o := range map[string]Options{
		`check name "A"`:                      {Name: "A"},
		`check name "../x"`:                   {Name: "../x"},
		"check nodes -1":                      {Nodes: -1},
		"check nodes 1000":                    {Nodes: 1000},
		`check family "ipx"`:                  {Family: "ipx"},
		`check network "x": want one of po`:   {Network: "x"},
		`check proxy "poplin": want one of k`: {Network: "none", Proxy: "poplin"},
		`check proxy "x": want one of poplin`: {Proxy: "x"},
		"check routed 4":                      {Routed: 4},
	} {
		if _, err := o.complete(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: got %v, want %q", o, err, want)
		}
	}
	if o, err := (Options{Network: "none"}).complete(); err != nil || o.Proxy != "kube-proxy" {
		t.Errorf("defaults without a network: %+v, %v", o, err)
	}
}
