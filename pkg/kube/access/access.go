// Package access asks the API server who somebody is and what they may. Input
// is a bearer token and a path; output is the user's name and a verdict,
// remembered for a short time. It refuses to judge by itself: without an
// answer there is no verdict.
package access

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/kube/group"
)

const (
	// A token that was taken back is good for one more minute, a right that
	// was given takes effect within seconds.
	allowedFor, deniedFor = time.Minute, 10 * time.Second
	// remembered bounds the verdicts in memory.
	remembered = 256
	timeout    = 5 * time.Second
)

var (
	authenticationV1 = schema.GroupVersion{Group: "authentication.k8s.io", Version: "v1"}
	authorizationV1  = schema.GroupVersion{Group: "authorization.k8s.io", Version: "v1"}
)

// Reviewer asks, and remembers the answers.
type Reviewer struct {
	authentication, authorization rest.Interface

	mu       sync.Mutex
	verdicts map[question]verdict
}

// question is a request to be judged; the token is not kept.
type question struct {
	token [sha256.Size]byte
	path  string
}

type verdict struct {
	user    string // empty: the token is nobody's
	allowed bool
	until   time.Time
}

// New makes a reviewer. The account that it asks with needs the ClusterRole
// system:auth-delegator.
func New(rc *rest.Config) (*Reviewer, error) {
	r := &Reviewer{verdicts: map[question]verdict{}}
	known := runtime.NewScheme()
	for _, gv := range []schema.GroupVersion{authenticationV1, authorizationV1} {
		metav1.AddToGroupVersion(known, gv)
	}
	err := group.Clients(rc, known, map[schema.GroupVersion]*rest.Interface{
		authenticationV1: &r.authentication, authorizationV1: &r.authorization,
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

// MayGet says whose token it is, and whether they may get a path that is no
// resource's, such as /metrics. user is empty where the token is nobody's; an
// error says that there is no verdict.
func (r *Reviewer) MayGet(ctx context.Context, token, path string) (user string, allowed bool, err error) {
	q := question{sha256.Sum256([]byte(token)), path}
	if v, known := r.recall(q); known {
		return v.user, v.allowed, nil
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	who, err := r.authenticate(ctx, token)
	if err != nil {
		return "", false, fmt.Errorf("ask the API server whose token it is: %w", err)
	}
	v := verdict{user: who.Username}
	if v.user != "" {
		if v.allowed, err = r.authorize(ctx, who, path); err != nil {
			return "", false, fmt.Errorf("ask the API server what %s may: %w", v.user, err)
		}
	}
	r.remember(q, v)
	return v.user, v.allowed, nil
}

func (r *Reviewer) recall(q question) (verdict, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	v, known := r.verdicts[q]
	return v, known && time.Now().Before(v.until)
}

func (r *Reviewer) remember(q question, v verdict) {
	now := time.Now()
	v.until = now.Add(deniedFor)
	if v.allowed {
		v.until = now.Add(allowedFor)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.verdicts) >= remembered {
		for old, was := range r.verdicts {
			// A flood of wrong tokens does not push out a right one.
			if !was.allowed || now.After(was.until) {
				delete(r.verdicts, old)
			}
		}
	}
	if len(r.verdicts) < remembered {
		r.verdicts[q] = v
	}
}

// user is what a TokenReview says and a SubjectAccessReview wants to know.
type user struct {
	Username string              `json:"username"`
	UID      string              `json:"uid"`
	Groups   []string            `json:"groups"`
	Extra    map[string][]string `json:"extra"`
}

func (r *Reviewer) authenticate(ctx context.Context, token string) (user, error) {
	var answer struct {
		Status struct {
			Authenticated bool `json:"authenticated"`
			User          user `json:"user"`
		} `json:"status"`
	}
	err := review(ctx, r.authentication, "tokenreviews", authenticationV1, "TokenReview", map[string]any{"token": token}, &answer)
	if err != nil || !answer.Status.Authenticated {
		return user{}, err
	}
	return answer.Status.User, nil
}

func (r *Reviewer) authorize(ctx context.Context, who user, path string) (bool, error) {
	var answer struct {
		Status struct {
			Allowed bool `json:"allowed"`
		} `json:"status"`
	}
	// An evaluation error is an authorizer's that could not say; others did.
	err := review(ctx, r.authorization, "subjectaccessreviews", authorizationV1, "SubjectAccessReview", map[string]any{
		"user": who.Username, "uid": who.UID, "groups": who.Groups, "extra": who.Extra,
		"nonResourceAttributes": map[string]string{"path": path, "verb": "get"},
	}, &answer)
	return answer.Status.Allowed, err
}

// review creates an object that nobody keeps, and reads the answer from it.
func review(ctx context.Context, to rest.Interface, resource string, gv schema.GroupVersion, kind string, spec, answer any) error {
	body, err := json.Marshal(map[string]any{"apiVersion": gv.String(), "kind": kind, "spec": spec})
	if err != nil {
		return err
	}
	text, err := to.Post().Resource(resource).SetHeader("Content-Type", "application/json").Body(body).Do(ctx).Raw()
	if err != nil {
		return err
	}
	return json.Unmarshal(text, answer)
}
