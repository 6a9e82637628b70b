// Package group makes clients of the API server's groups. Inputs are how to
// reach the server, the kinds that are known and where each client goes;
// output are the clients, which share one pool of connections. It refuses
// nothing: a kind that is not known fails when it is asked for.
package group

import (
	"fmt"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Connect says how to reach the API server: as a kubeconfig has it, or as the
// pod's own account.
func Connect(kubeconfig string) (*rest.Config, error) {
	if kubeconfig == "" {
		rc, err := rest.InClusterConfig()
		if err != nil {
			return nil, fmt.Errorf("find the API server (outside a pod, give a kubeconfig): %w", err)
		}
		return rc, nil
	}
	rc, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig %s: %w", kubeconfig, err)
	}
	return rc, nil
}

// Clients makes a client of each version of a group.
func Clients(rc *rest.Config, known *runtime.Scheme, to map[schema.GroupVersion]*rest.Interface) error {
	hc, err := rest.HTTPClientFor(rc)
	if err != nil {
		return fmt.Errorf("make client of the API server: %w", err)
	}
	codecs := serializer.NewCodecFactory(known).WithoutConversion()
	for gv, client := range to {
		one := rest.CopyConfig(rc)
		one.APIPath, one.GroupVersion, one.NegotiatedSerializer = "/apis", &gv, codecs
		if gv.Group == "" {
			one.APIPath = "/api"
		}
		if *client, err = rest.RESTClientForConfigAndClient(one, hc); err != nil {
			return fmt.Errorf("make client of %s: %w", gv, err)
		}
	}
	return nil
}
