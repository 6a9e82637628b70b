// Package dump gathers what a report of a bug should have with it. Inputs are a
// person's client and a place for an archive; output is a tar.gz of what the API
// server and the daemons say. It refuses to ask for Secrets, and of what it does
// ask for it leaves out where secrets are put by mistake: environments, commands,
// annotations' values, other ConfigMaps. What could not be had is named in the
// archive and costs nothing else.
package dump

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/url"
	"slices"
	"time"

	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/kube/fleet"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/version"
)

// own stands for the namespace of Poplin's pods.
const own = "own"

// collections are what the cluster says, by the name of the file.
var collections = []struct{ name, group, namespace, resource string }{
	{"nodes", "v1", "", "nodes"},
	{"namespaces", "v1", "", "namespaces"},
	{"pods", "v1", "", "pods"},
	{"services", "v1", "", "services"},
	{"endpointslices", "discovery.k8s.io/v1", "", "endpointslices"},
	{"ingresses", "networking.k8s.io/v1", "", "ingresses"},
	{"ingressclasses", "networking.k8s.io/v1", "", "ingressclasses"},
	{"networkpolicies", "networking.k8s.io/v1", "", "networkpolicies"},
	{"clusternetworkpolicies", "policy.networking.k8s.io/v1alpha2", "", "clusternetworkpolicies"},
	{"servicecidrs", "networking.k8s.io/v1", "", "servicecidrs"},
	{"nodenetworks", "poplin.dev/v1alpha1", "", "nodenetworks"},
	{"daemonsets", "apps/v1", own, "daemonsets"},
	{"deployments", "apps/v1", own, "deployments"},
	{"events", "v1", "", "events"},
}

// commands are what each daemon's container is asked.
var commands = []struct {
	name    string
	command []string
}{
	{"status", []string{"/poplinctl", "status", "-o", "json"}},
	{"doctor", []string{"/poplinctl", "doctor", "-o", "json"}},
	{"ipam", []string{"/poplinctl", "ipam", "show", "-o", "json"}},
	{"query", []string{"/poplind", "query"}},
}

const (
	// patience is with one node, logBytes the end of a log that is of interest.
	patience = 20 * time.Second
	logBytes = "4194304"
)

// dump is one archive that is being written.
type dump struct {
	client  *person.Client
	archive *tar.Writer
	now     time.Time
	// pods are the daemons', by node, home is their namespace.
	pods    map[string]fleet.Pod
	home    string
	missing []string
}

// Write writes the archive. An error says that it is not whole; what could not
// be had is returned.
func Write(ctx context.Context, c *person.Client, to io.Writer, now time.Time) (missing []string, err error) {
	packed := gzip.NewWriter(to)
	d := &dump{client: c, archive: tar.NewWriter(packed), now: now}
	err = d.fill(ctx)
	return d.missing, errors.Join(err, d.archive.Close(), packed.Close())
}

func (d *dump) fill(ctx context.Context) error {
	if err := d.file("version.txt", []byte(fmt.Sprintf("poplinctl %s\nwritten %s\n", version.String(), d.now.UTC().Format(time.RFC3339)))); err != nil {
		return err
	}
	var err error
	d.pods, err = fleet.Pods(ctx, d.client, "")
	d.lacks("daemons", err)
	d.home = fleet.Home(d.pods)
	for _, c := range collections {
		if c.namespace == own {
			c.namespace = d.home
		}
		list, err := person.List[map[string]any](ctx, d.client, person.Path(c.group, c.namespace, c.resource, ""), "", "")
		d.lacks(c.name, err)
		for _, o := range list {
			scrub(o)
		}
		if err := d.object("cluster/"+c.name+".json", list); err != nil {
			return err
		}
	}
	// The one ConfigMap that is Poplin's own, and has no place for a secret.
	config, err := person.Get[map[string]any](ctx, d.client, person.Path("v1", d.home, "configmaps", "poplin-config"))
	d.lacks("configuration", err)
	if err := d.object("cluster/poplin-config.json", config["data"]); err != nil {
		return err
	}
	if err := errors.Join(d.nodes(ctx), d.logs(ctx)); err != nil {
		return err
	}
	if len(d.missing) > 0 {
		return d.object("missing.json", d.missing)
	}
	return nil
}

// nodes asks the daemons.
func (d *dump) nodes(ctx context.Context) error {
	nodes := slices.Sorted(maps.Keys(d.pods))
	for _, c := range commands {
		for _, a := range fleet.Ask(ctx, d.client, d.pods, nodes, c.command, patience) {
			if len(a.Out) == 0 {
				d.lacks(c.name+" of node "+a.Node, a.Err)
				continue
			}
			if err := d.file("nodes/"+a.Node+"/"+c.name+".json", a.Out); err != nil {
				return err
			}
		}
	}
	return nil
}

// logs are those of Poplin's own pods, and of containers that ended before.
func (d *dump) logs(ctx context.Context) error {
	pods, err := person.List[object.Pod](ctx, d.client, person.Path("v1", d.home, "pods", ""), "", "")
	d.lacks("logs", err)
	for _, p := range pods {
		for _, c := range p.Spec.Containers {
			for name, previous := range map[string]string{"": "false", ".previous": "true"} {
				at := person.Path("v1", d.home, "pods", p.Name) + "/log"
				log, err := d.client.Text(ctx, at, url.Values{"container": {c.Name}, "previous": {previous}, "limitBytes": {logBytes}})
				if err != nil {
					// There is no previous one, as a rule.
					if previous == "false" {
						d.lacks("log of pod "+p.Name, err)
					}
					continue
				}
				if err := d.file("logs/"+p.Name+"/"+c.Name+name+".log", log); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (d *dump) lacks(what string, err error) {
	if err != nil {
		d.missing = append(d.missing, what+": "+err.Error())
	}
}

func (d *dump) object(name string, o any) error {
	text, err := json.MarshalIndent(o, "", " ")
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return d.file(name, text)
}

func (d *dump) file(name string, text []byte) error {
	head := &tar.Header{Name: "poplin-sysdump/" + name, Mode: 0o600, Size: int64(len(text)), ModTime: d.now}
	if err := d.archive.WriteHeader(head); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if _, err := d.archive.Write(text); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
