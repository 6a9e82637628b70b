package plane

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"

	"golang.org/x/sync/errgroup"
)

// Pair is a key of etcd, and what is there.
type Pair struct {
	Key   string
	Value []byte
}

const (
	etcd = "http://127.0.0.1:2379/v3/kv/"
	// perTransaction is how many keys etcd takes at once.
	perTransaction = 128
)

// Stored is what the API server keeps of an object, such as
// /registry/pods/NAMESPACE/NAME.
func (l *Plane) Stored(ctx context.Context, key string) ([]byte, error) {
	var answer struct {
		KVs []struct{ Value []byte }
	}
	if err := l.askEtcd(ctx, "range", object{"key": []byte(key)}, &answer); err != nil {
		return nil, err
	}
	if len(answer.KVs) == 0 {
		return nil, fmt.Errorf("etcd holds no %s", key)
	}
	return answer.KVs[0].Value, nil
}

// Store writes objects behind the API server, which hears of them as of any
// other server's: a hundred times faster than to ask it for each.
func (l *Plane) Store(ctx context.Context, pairs []Pair) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for len(pairs) > 0 {
		n := min(perTransaction, len(pairs))
		var puts []object
		for _, p := range pairs[:n] {
			puts = append(puts, object{"requestPut": object{"key": []byte(p.Key), "value": p.Value}})
		}
		pairs = pairs[n:]
		g.Go(func() error { return l.askEtcd(ctx, "txn", object{"success": puts}, nil) })
	}
	return g.Wait()
}

func (l *Plane) askEtcd(ctx context.Context, what string, question object, into any) error {
	b, err := json.Marshal(question)
	if err != nil {
		return err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, etcd+what, bytes.NewReader(b))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: Dialer(l.control), DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s: %s", what, response.Status, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}
