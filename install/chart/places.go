package chart

import (
	"fmt"
	"strings"
)

// place is where a value belongs: text of a manifest that is there exactly so
// many times (0: once), and what stands in its stead in the chart.
type place struct {
	text, instead string
	times         int
}

// daemonPlaces are those of poplin.yaml.
func daemonPlaces(config string) []place {
	return []place{
		{text: "image: poplin.dev/poplin:dev\n", instead: "image: {{ .Values.image.registry }}/poplin:{{ .Values.image.tag }}\n", times: 2},
		{text: "imagePullPolicy: IfNotPresent\n", instead: "imagePullPolicy: {{ .Values.image.pullPolicy }}\n", times: 2},
		{text: indent(config, "    "), instead: "{{ .Values.config | toYaml | indent 4 }}\n"},
		{
			text: "        kubectl.kubernetes.io/default-container: poplind\n",
			instead: "        kubectl.kubernetes.io/default-container: poplind\n" +
				"        # A change of the configuration restarts the daemons.\n" +
				"        checksum/config: {{ .Values.config | toYaml | sha256sum }}\n",
		},
		{
			text:    "    spec:\n      serviceAccountName: poplind\n",
			instead: "    spec:\n      {{- with .Values.image.pullSecrets }}\n      imagePullSecrets: {{ toJson . }}\n      {{- end }}\n      serviceAccountName: poplind\n",
		},
		// The runtime's directories, the same in the container and outside.
		{text: "mountPath: /etc/cni/net.d}", instead: "mountPath: {{ .Values.config.cni.confDir }}}"},
		{text: "hostPath: {path: /etc/cni/net.d,", instead: "hostPath: {path: {{ .Values.config.cni.confDir }},"},
		{text: "hostPath: {path: /opt/cni/bin,", instead: "hostPath: {path: {{ .Values.paths.cniBin }},"},
		// The options, each off by default: what the patches in options/ and
		// host-files.yaml add.
		{text: "add: [NET_ADMIN]", instead: "add: [NET_ADMIN{{ if .Values.options.netRaw }}, NET_RAW{{ end }}{{ if .Values.config.trace.podInspection }}, SYS_ADMIN{{ end }}]"},
		{text: `"--private=/var/lib/poplin,/run/poplin"]`, instead: `"--private=/var/lib/poplin,/run/poplin"{{ if .Values.options.hostFiles }}, --etc=/host/etc{{ end }}]`},
		{
			text:    "        - {name: cni-bin, mountPath: /opt/cni/bin}\n",
			instead: "        - {name: cni-bin, mountPath: /opt/cni/bin}\n" + optional(".Values.options.hostFiles", "        - {name: etc, mountPath: /host/etc}\n"),
		},
		{
			text: "        - {name: sysctl, mountPath: /host/proc/sys/net}\n",
			instead: "        - {name: sysctl, mountPath: /host/proc/sys/net}\n" +
				optional(".Values.config.trace.podInspection", "        - {name: netns, mountPath: /run/netns, readOnly: true, mountPropagation: HostToContainer}\n"),
		},
		{
			text: "        hostPath: {path: /proc/sys/net, type: Directory}\n",
			instead: "        hostPath: {path: /proc/sys/net, type: Directory}\n" +
				optional(".Values.options.hostFiles", "      - name: etc\n        hostPath: {path: /etc, type: Directory}\n") +
				optional(".Values.config.trace.podInspection", "      - name: netns\n        hostPath: {path: /run/netns, type: DirectoryOrCreate}\n"),
		},
	}
}

// ingressPlaces are those of poplin-ingress.yaml.
var ingressPlaces = []place{
	{text: "image: poplin.dev/poplin-ingress:dev\n", instead: "image: {{ .Values.image.registry }}/poplin-ingress:{{ .Values.image.tag }}\n"},
	{text: "imagePullPolicy: IfNotPresent\n", instead: "imagePullPolicy: {{ .Values.image.pullPolicy }}\n"},
	{text: `is-default-class: "true"`, instead: "is-default-class: {{ .Values.ingress.defaultClass | quote }}"},
	{text: "replicas: 2\n", instead: "replicas: {{ .Values.ingress.replicas }}\n"},
	{text: "  type: LoadBalancer\n", instead: "  type: {{ .Values.ingress.service.type }}\n"},
	{text: "externalTrafficPolicy: Local\n", instead: "externalTrafficPolicy: {{ .Values.ingress.service.externalTrafficPolicy }}\n"},
	{
		text:    "args: [--publish-service=poplin-system/poplin-ingress, --withdraw=5s, --drain=30s]",
		instead: "args: [--publish-service=poplin-system/poplin-ingress, --withdraw=5s, --drain=30s{{ range .Values.ingress.args }}, {{ . | quote }}{{ end }}]",
	},
	{
		text:    "    spec:\n      serviceAccountName: poplin-ingress\n",
		instead: "    spec:\n      {{- with .Values.image.pullSecrets }}\n      imagePullSecrets: {{ toJson . }}\n      {{- end }}\n      serviceAccountName: poplin-ingress\n",
	},
}

// optional is lines that are there only where a value is true.
func optional(condition, lines string) string {
	return "        {{- if " + condition + " }}\n" + lines + "        {{- end }}\n"
}

// fillIn makes a template of a manifest.
func fillIn(manifest string, places []place) (string, error) {
	if strings.Contains(manifest, "{{") {
		return "", fmt.Errorf("it holds {{, which Helm takes for its own")
	}
	for _, p := range places {
		if n := strings.Count(manifest, p.text); n != max(p.times, 1) {
			return "", fmt.Errorf("%q is there %d times, want %d", p.text, n, max(p.times, 1))
		}
	}
	for _, p := range places {
		manifest = strings.ReplaceAll(manifest, p.text, p.instead)
	}
	return manifest, nil
}
