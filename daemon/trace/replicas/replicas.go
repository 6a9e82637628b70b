// Package replicas asks all replicas of the Ingress controller what they have
// programmed for a request, by pods/exec, and compares that with what the API's
// objects say. Inputs are pods and a visit; output is, by replica, how it differs
// or why that is not known. It refuses to compare replicas that were started with
// different settings.
package replicas

import (
	"context"
	"encoding/json"
	"fmt"
	"reflect"
	"sync"
	"time"

	"poplin.dev/poplin/daemon/ingress/ask"
	"poplin.dev/poplin/pkg/cluster/object"
	"poplin.dev/poplin/pkg/facts"
	"poplin.dev/poplin/pkg/ingress"
	"poplin.dev/poplin/pkg/kube/person"
	"poplin.dev/poplin/pkg/trace/way"
)

// patience is with one replica.
const patience = 3 * time.Second

// Answers are by pod.
type Answers map[string]answer

type answer struct {
	ask.Answer
	err error
}

// Ask asks those that are ready, all at once.
func Ask(ctx context.Context, api *person.Client, pods []object.Pod, v facts.Visit) Answers {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	all := Answers{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, p := range pods {
		if !p.Ready() || p.Deleted != nil {
			continue
		}
		wg.Go(func() {
			a := one(ctx, api, p, v)
			mu.Lock()
			defer mu.Unlock()
			all[p.String()] = a
		})
	}
	wg.Wait()
	return all
}

func one(ctx context.Context, api *person.Client, p object.Pod, v facts.Visit) (a answer) {
	text, err := json.Marshal(v)
	if err != nil {
		return answer{err: err}
	}
	out, err := api.Run(ctx, p.Namespace, p.Name, "poplin-ingress", []string{"/poplin-ingress", "query", "-visit", string(text)})
	if err == nil {
		err = json.Unmarshal(out, &a.Answer)
	}
	a.err = err
	return a
}

// Settings are those that a replica was started with; where none answers, those of
// the manifest.
func (a Answers) Settings() ask.Settings {
	for _, x := range a {
		if x.err == nil {
			return x.Settings
		}
	}
	return ask.Settings{Compile: ingress.Config{Controllers: []string{ingress.Controller}}}
}

// Compare holds them against what replicas with these settings should serve.
func (a Answers) Compare(with ask.Settings, want facts.Served) map[string]way.Told {
	all := map[string]way.Told{}
	for pod, x := range a {
		switch {
		case x.err != nil:
			all[pod] = way.Told{Unknown: x.err.Error()}
		case !reflect.DeepEqual(x.Settings, with):
			all[pod] = way.Told{Unknown: fmt.Sprintf("it was started with other settings than another replica: %+v", x.Settings)}
		default:
			all[pod] = way.Told{Differs: x.Served.Differs(want)}
		}
	}
	return all
}
