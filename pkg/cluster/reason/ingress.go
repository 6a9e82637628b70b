package reason

var onIngress = []string{"Ingress"}

var ingress = map[Reason]Entry{
	InvalidAnnotation: {Name: "InvalidAnnotation", On: onIngress,
		Means: "An annotation has a value that cannot be read, is not supported, or does not fit the path. Where it decides who may enter or what is served, requests get 503 until then.",
		Cure:  "Correct or remove the annotation that the message names."},
	InvalidHost: {Name: "InvalidHost", On: onIngress,
		Means: "The host of a rule is no host name, and is not served.",
		Cure:  "Correct `spec.rules[].host`."},
	InvalidPath: {Name: "InvalidPath", On: onIngress,
		Means: "A path is none, or a regular expression that cannot be compiled, and is not served.",
		Cure:  "Correct the path; regular expressions are in RE2 syntax."},
	InvalidCertificate: {Name: "InvalidCertificate", On: onIngress,
		Means: "A Secret of `spec.tls` is missing, broken, expired or for another host.",
		Cure:  "Write a certificate for the host into the Secret; `poplinctl ingress status` shows what is there."},
	HostTaken: {Name: "HostTaken", On: onIngress,
		Means: "With `-one-namespace-per-host`, an older Ingress of another namespace has the host.",
		Cure:  "Choose another host, or move the Ingress to that namespace."},
	Conflict: {Name: "Conflict", On: onIngress,
		Means: "An older Ingress has the same path of the host, or the default back end; or the path stands twice in this one.",
		Cure:  "Remove one of the two, or choose another path."},
	UnsupportedBackend: {Name: "UnsupportedBackend", On: onIngress,
		Means: "A back end is a resource and no Service. Its path is not served.",
		Cure:  "Name a Service."},
	BackendUnavailable: {Name: "BackendUnavailable", On: onIngress,
		Means: "The Service of a back end is not there, has no such port, is of type ExternalName, or has no endpoint that is ready (requests get 503); or some endpoints have addresses that no pod has, and are not used.",
		Cure:  "Correct the Service or its name; see why its pods are not ready."},
	BackendNotVerified: {Name: "BackendNotVerified", On: onIngress, Normal: true,
		Means: "Requests go to the back end over TLS, and nobody checks its certificate.",
		Cure:  "Name the CA in `ingress.poplin.dev/backend-ca-secret` and set `backend-tls-verify`."},
}
