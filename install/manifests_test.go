package install_test

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"sigs.k8s.io/yaml"

	"poplin.dev/poplin/install"
	"poplin.dev/poplin/pkg/config"
)

// manifest is the manifest's objects, each parsed strictly as its kind.
func manifest(t *testing.T) map[string]any {
	t.Helper()
	objects := map[string]any{}
	for doc := range bytes.SplitSeq(install.Manifest, []byte("\n---\n")) {
		var head struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
		}
		if err := yaml.Unmarshal(doc, &head); err != nil {
			t.Fatal(err)
		}
		var o any
		switch head.APIVersion + " " + head.Kind {
		case "v1 Namespace":
			o = &corev1.Namespace{}
		case "v1 ServiceAccount":
			o = &corev1.ServiceAccount{}
		case "v1 ConfigMap":
			o = &corev1.ConfigMap{}
		case "rbac.authorization.k8s.io/v1 ClusterRole":
			o = &rbacv1.ClusterRole{}
		case "rbac.authorization.k8s.io/v1 ClusterRoleBinding":
			o = &rbacv1.ClusterRoleBinding{}
		case "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicy":
			o = &admissionv1.ValidatingAdmissionPolicy{}
		case "admissionregistration.k8s.io/v1 ValidatingAdmissionPolicyBinding":
			o = &admissionv1.ValidatingAdmissionPolicyBinding{}
		case "apps/v1 DaemonSet":
			o = &appsv1.DaemonSet{}
		case "apiextensions.k8s.io/v1 CustomResourceDefinition":
			o = &map[string]any{} // its types are in a module of its own
		default:
			t.Fatalf("unexpected %s %s", head.APIVersion, head.Kind)
		}
		if err := yaml.UnmarshalStrict(doc, o); err != nil {
			t.Fatalf("%s %s: %v", head.Kind, head.Metadata.Name, err)
		}
		id := head.Kind + " " + head.Metadata.Name
		if objects[id] != nil {
			t.Fatalf("%s stands twice", id)
		}
		objects[id] = o
	}
	return objects
}

func TestManifestGrantsNoMoreThanThis(t *testing.T) {
	want := map[string][]string{
		"ClusterRole poplind": {
			"/events: create patch",
			"/namespaces: list watch",
			"/nodes/status: patch",
			"/nodes: list watch",
			"/pods: list watch",
			"/services: list watch",
			"apiextensions.k8s.io/customresourcedefinitions[clusternetworkpolicies.policy.networking.k8s.io]: list watch",
			"discovery.k8s.io/endpointslices: list watch",
			"networking.k8s.io/networkpolicies: list watch",
			"networking.k8s.io/servicecidrs: list watch",
			"policy.networking.k8s.io/clusternetworkpolicies: list watch",
			"poplin.dev/nodenetworks: create get list update watch",
		},
	}
	objects := manifest(t)
	for id, o := range objects {
		var rules []rbacv1.PolicyRule
		switch o := o.(type) {
		case *rbacv1.ClusterRole:
			rules = o.Rules
		default:
			continue
		}
		var got []string
		for _, r := range rules {
			slices.Sort(r.Verbs)
			for _, res := range r.Resources {
				only := ""
				if len(r.ResourceNames) > 0 {
					only = fmt.Sprint(r.ResourceNames)
				}
				got = append(got, fmt.Sprintf("%s/%s%s: %s", r.APIGroups[0], res, only, strings.Join(r.Verbs, " ")))
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, want[id]) {
			t.Errorf("%s grants %q, want %q", id, got, want[id])
		}
		delete(want, id)
	}
	if len(want) > 0 {
		t.Errorf("missing: %v", want)
	}
	crb := objects["ClusterRoleBinding poplind"].(*rbacv1.ClusterRoleBinding)
	daemon := rbacv1.Subject{Kind: "ServiceAccount", Name: "poplind", Namespace: "poplin-system"}
	if !reflect.DeepEqual(crb.Subjects, []rbacv1.Subject{daemon}) {
		t.Errorf("bound to %v", crb.Subjects)
	}
}

// Each right to write is held by a policy that refuses when in doubt, and is
// in force.
func TestManifestHoldsWritesByPolicies(t *testing.T) {
	objects := manifest(t)
	var held []string
	for id, o := range objects {
		policy, ok := o.(*admissionv1.ValidatingAdmissionPolicy)
		if !ok {
			continue
		}
		binding, bound := objects["ValidatingAdmissionPolicyBinding "+policy.Name].(*admissionv1.ValidatingAdmissionPolicyBinding)
		if !bound || binding.Spec.PolicyName != policy.Name || !slices.Equal(binding.Spec.ValidationActions, []admissionv1.ValidationAction{admissionv1.Deny}) {
			t.Errorf("%s is not in force", id)
		}
		if f := policy.Spec.FailurePolicy; f == nil || *f != admissionv1.Fail {
			t.Errorf("%s lets pass what it cannot judge", id)
		}
		for _, r := range policy.Spec.MatchConstraints.ResourceRules {
			for _, resource := range r.Resources {
				held = append(held, r.APIGroups[0]+"/"+resource)
			}
		}
	}
	for id, o := range objects {
		role, ok := o.(*rbacv1.ClusterRole)
		if !ok {
			continue
		}
		for _, r := range role.Rules {
			writes := slices.ContainsFunc(r.Verbs, func(v string) bool { return !slices.Contains([]string{"get", "list", "watch"}, v) })
			if resource := r.APIGroups[0] + "/" + r.Resources[0]; writes && !slices.Contains(held, resource) {
				t.Errorf("%s may write %s, and no policy says what", id, resource)
			}
		}
	}
}

func TestManifestConfinesTheDaemon(t *testing.T) {
	ds := manifest(t)["DaemonSet poplind"].(*appsv1.DaemonSet)
	pod := ds.Spec.Template.Spec
	if !pod.HostNetwork || pod.HostPID || pod.HostIPC || pod.PriorityClassName != "system-node-critical" || pod.ServiceAccountName != "poplind" {
		t.Error("host namespaces, priority or service account are not as designed")
	}
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
		want := corev1.Toleration{Effect: effect, Operator: corev1.TolerationOpExists}
		if !slices.Contains(pod.Tolerations, want) {
			t.Errorf("does not tolerate every %s", effect)
		}
	}
	if s := pod.SecurityContext.SeccompProfile; s == nil || s.Type != corev1.SeccompProfileTypeRuntimeDefault {
		t.Error("no seccomp profile")
	}
	capabilities := map[string][]corev1.Capability{"install": nil, "poplind": {"NET_ADMIN"}}
	writable := map[string][]string{"install": {"/opt/cni/bin", "/var/lib/poplin", "/run/poplin"}, "poplind": {"/etc/cni/net.d", "/var/lib/poplin", "/run/poplin", "/var/lib/cni", "/host/proc/sys/net"}}
	for _, c := range slices.Concat(pod.InitContainers, pod.Containers) {
		s := c.SecurityContext
		if s == nil || s.Privileged != nil || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || s.ReadOnlyRootFilesystem == nil || !*s.ReadOnlyRootFilesystem {
			t.Errorf("%s: privileges or root file system are not as designed", c.Name)
			continue
		}
		if !slices.Equal(s.Capabilities.Drop, []corev1.Capability{"ALL"}) || !slices.Equal(s.Capabilities.Add, capabilities[c.Name]) {
			t.Errorf("%s: capabilities %+v", c.Name, s.Capabilities)
		}
		var got []string
		for _, m := range c.VolumeMounts {
			if !slices.ContainsFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == m.Name }) {
				t.Errorf("%s: no volume %s", c.Name, m.Name)
			}
			if !m.ReadOnly {
				got = append(got, m.MountPath)
			}
		}
		if !slices.Equal(got, writable[c.Name]) {
			t.Errorf("%s may write %v, want %v", c.Name, got, writable[c.Name])
		}
		if c.Image != "poplin.dev/poplin:dev" || c.ImagePullPolicy != corev1.PullIfNotPresent || c.Resources.Requests.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero() {
			t.Errorf("%s: image or requests are not as designed", c.Name)
		}
	}
	if ds.Spec.Selector.MatchLabels["app.kubernetes.io/name"] != ds.Spec.Template.Labels["app.kubernetes.io/name"] {
		t.Error("the DaemonSet does not select its pods")
	}
}

// The static pod is the DaemonSet's pod, but for who it is and where its
// configuration lies.
// TestDaemonSetToleratesEveryTaint: of whatever key, so that a node which somebody
// has tainted until it is complete gets its network.
func TestDaemonSetToleratesEveryTaint(t *testing.T) {
	tolerations := manifest(t)["DaemonSet poplind"].(*appsv1.DaemonSet).Spec.Template.Spec.Tolerations
	for _, effect := range []corev1.TaintEffect{corev1.TaintEffectNoSchedule, corev1.TaintEffectNoExecute} {
		if !slices.Contains(tolerations, corev1.Toleration{Effect: effect, Operator: corev1.TolerationOpExists}) {
			t.Errorf("a taint %s of any key is not tolerated: %v", effect, tolerations)
		}
	}
}

func TestStaticPodIsTheDaemonSets(t *testing.T) {
	text, err := os.ReadFile("manifests/static/pod.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var static corev1.Pod
	if err := yaml.UnmarshalStrict(text, &static); err != nil {
		t.Fatal(err)
	}
	want := manifest(t)["DaemonSet poplind"].(*appsv1.DaemonSet).Spec.Template.Spec
	want.ServiceAccountName, want.NodeSelector, want.Affinity, want.Tolerations = "", nil, nil, nil
	path := func(name, path string, kind corev1.HostPathType) corev1.Volume {
		return corev1.Volume{Name: name, VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: path, Type: &kind}}}
	}
	const conf, pki = "/etc/kubernetes/kubelet.conf", "/var/lib/kubelet/pki"
	want.Volumes = slices.Concat([]corev1.Volume{
		path("config", "/etc/poplin", corev1.HostPathDirectory), path("kubelet-conf", conf, corev1.HostPathFile), path("kubelet-pki", pki, corev1.HostPathDirectory),
	}, want.Volumes[1:])
	daemon := &want.Containers[0]
	daemon.Command = slices.Insert(daemon.Command, 1, "--kubeconfig="+conf)
	daemon.VolumeMounts = slices.Insert(daemon.VolumeMounts, 1,
		corev1.VolumeMount{Name: "kubelet-conf", MountPath: conf, ReadOnly: true}, corev1.VolumeMount{Name: "kubelet-pki", MountPath: pki, ReadOnly: true})
	if !reflect.DeepEqual(static.Spec, want) {
		t.Errorf("got  %+v\nwant %+v", static.Spec, want)
	}
}

func TestManifestAgreesWithTheConfiguration(t *testing.T) {
	objects := manifest(t)
	text := objects["ConfigMap poplin-config"].(*corev1.ConfigMap).Data["config.yaml"]
	c, err := config.Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if changes := config.Changes(config.Default(), c); len(changes) > 0 {
		t.Errorf("the manifest's configuration is not the default: %v", changes)
	}
	for _, key := range config.Keys() {
		parts := strings.Split(key.Path, ".")
		if !strings.Contains(text, parts[len(parts)-1]+":") {
			t.Errorf("the manifest's configuration does not show %s", key.Path)
		}
	}
	pod := objects["DaemonSet poplind"].(*appsv1.DaemonSet).Spec.Template.Spec
	for _, p := range []*corev1.Probe{pod.Containers[0].LivenessProbe, pod.Containers[0].ReadinessProbe} {
		if got := fmt.Sprintf("%s:%s", p.HTTPGet.Host, p.HTTPGet.Port.String()); got != c.Health.Address {
			t.Errorf("a probe asks %s, but health.address is %s", got, c.Health.Address)
		}
	}
	i := slices.IndexFunc(pod.Volumes, func(v corev1.Volume) bool { return v.Name == "cni-conf" })
	if got := pod.Volumes[i].HostPath.Path; got != c.CNI.ConfDir {
		t.Errorf("volume cni-conf is %s, but cni.confDir is %s", got, c.CNI.ConfDir)
	}
	ns := objects["Namespace poplin-system"].(*corev1.Namespace)
	if got := cmp.Or(ns.Labels["pod-security.kubernetes.io/enforce"], "none"); got != "privileged" {
		t.Errorf("pod security: %s", got)
	}
}
