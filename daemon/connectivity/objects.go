package connectivity

import (
	"strconv"

	"poplin.dev/poplin/pkg/kube/scratch"
)

const (
	// label is a label of the Namespace in which `poplinctl connectivity-test`
	// makes everything.
	label = "poplin.dev/connectivity-test"
	port  = 8080
	host  = "connectivity.poplin.test"
)

type body = map[string]any

// objects are all that is made, to run the image.
func objects(image string) []scratch.Object {
	return []scratch.Object{
		{Group: "networking.k8s.io/v1", Resource: "networkpolicies", Body: onlyFriends()},
		{Group: "apps/v1", Resource: "daemonsets", Body: everywhere(image)},
		{Group: "v1", Resource: "pods", Body: single(guarded, image)},
		{Group: "v1", Resource: "pods", Body: single(friend, image)},
		{Group: "v1", Resource: "services", Body: service()},
		{Group: "networking.k8s.io/v1", Resource: "ingresses", Body: ingress()},
	}
}

// podSpec runs this program's own server, from the image that the daemons run.
func podSpec(image string) body {
	return body{
		"automountServiceAccountToken":  false,
		"terminationGracePeriodSeconds": 0,
		"securityContext":               body{"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": body{"type": "RuntimeDefault"}},
		"containers": []body{{
			"name": "echo", "image": image, "imagePullPolicy": "IfNotPresent",
			"command":         []string{"/poplinctl", "connectivity-test", "serve", "-address", ":" + strconv.Itoa(port)},
			"ports":           []body{{"containerPort": port}},
			"readinessProbe":  body{"httpGet": body{"path": "/", "port": port}, "periodSeconds": 1},
			"securityContext": body{"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": body{"drop": []string{"ALL"}}},
		}},
	}
}

// everywhere is a pod on every node that takes pods.
func everywhere(image string) body {
	labels := body{"app": "echo"}
	return body{
		"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": body{"name": "echo"},
		"spec": body{"selector": body{"matchLabels": labels}, "template": body{"metadata": body{"labels": labels}, "spec": podSpec(image)}},
	}
}

// single is one pod by itself.
func single(name, image string) body {
	return body{"apiVersion": "v1", "kind": "Pod", "metadata": body{"name": name, "labels": body{"app": name}}, "spec": podSpec(image)}
}

func service() body {
	return body{
		"apiVersion": "v1", "kind": "Service", "metadata": body{"name": "echo"},
		"spec": body{
			"type": "NodePort", "ipFamilyPolicy": "PreferDualStack", "selector": body{"app": "echo"},
			"ports": []body{{"name": "http", "port": 80, "targetPort": port}},
		},
	}
}

// onlyFriends lets nobody but one pod talk to another.
func onlyFriends() body {
	return body{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": body{"name": "only-friends"},
		"spec": body{
			"podSelector": body{"matchLabels": body{"app": guarded}}, "policyTypes": []string{"Ingress"},
			"ingress": []body{{"from": []body{{"podSelector": body{"matchLabels": body{"app": friend}}}}}},
		},
	}
}

func ingress() body {
	return body{
		"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", "metadata": body{"name": "echo"},
		"spec": body{"ingressClassName": "poplin", "rules": []body{{
			"host": host,
			"http": body{"paths": []body{{"path": "/", "pathType": "Prefix", "backend": body{"service": body{"name": "echo", "port": body{"name": "http"}}}}}},
		}}},
	}
}

// The pods that a policy is about.
const (
	guarded = "guarded"
	friend  = "friend"
)
