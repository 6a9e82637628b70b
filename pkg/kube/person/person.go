// Package person is what a person's program asks of the API server, once and
// for a few objects: to get them, and to run a command in a container. Inputs
// are a kubeconfig and names; outputs are values of pkg/cluster/object and what
// the command printed. What somebody may see and do is for RBAC to decide. It
// refuses to read Secrets, to watch and to write.
package person

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"path"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"poplin.dev/poplin/pkg/kube/group"
	"poplin.dev/poplin/pkg/version"
)

// Client asks.
type Client struct {
	conf *rest.Config
	core rest.Interface
}

// New makes a client; nothing is sent.
func New(kubeconfig string) (*Client, error) {
	conf, err := group.Connect(kubeconfig)
	if err != nil {
		return nil, err
	}
	conf.UserAgent, conf.QPS = "poplinctl/"+version.Version, -1 // a person asks for few things
	c := &Client{conf: conf}
	known, core := runtime.NewScheme(), schema.GroupVersion{Version: "v1"}
	metav1.AddToGroupVersion(known, core)
	return c, group.Clients(conf, known, map[schema.GroupVersion]*rest.Interface{core: &c.core})
}

// ErrAbsent says that there is no such object.
var ErrAbsent = errors.New("does not exist")

// Path is where an object, or without a name a collection, is found; group is
// such as "apps/v1", or "v1".
func Path(group, namespace, resource, name string) string {
	root := "/apis/" + group
	if group == "v1" {
		root = "/api/v1"
	}
	if namespace != "" {
		namespace = path.Join("namespaces", namespace)
	}
	return path.Join(root, namespace, resource, name)
}

// Get reads one object.
func Get[T any](ctx context.Context, c *Client, at string) (T, error) {
	var o T
	err := c.read(ctx, at, nil, &o)
	return o, err
}

// List reads a collection; selectors may be empty.
func List[T any](ctx context.Context, c *Client, at, labels, fields string) ([]T, error) {
	var all []T
	query := url.Values{"limit": {"1000"}}
	if labels != "" {
		query.Set("labelSelector", labels)
	}
	if fields != "" {
		query.Set("fieldSelector", fields)
	}
	for {
		var page struct {
			Meta struct {
				Continue string `json:"continue"`
			} `json:"metadata"`
			Items []T `json:"items"`
		}
		if err := c.read(ctx, at, query, &page); err != nil {
			return all, err
		}
		all = append(all, page.Items...)
		if page.Meta.Continue == "" {
			return all, nil
		}
		query.Set("continue", page.Meta.Continue)
	}
}

func (c *Client) read(ctx context.Context, at string, query url.Values, to any) error {
	b, err := c.Text(ctx, at, query)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, to); err != nil {
		return fmt.Errorf("read %s: %w", at, err)
	}
	return nil
}

// firstWord is how long an API server may be silent that somebody else can be asked
// for.
const firstWord = 700 * time.Millisecond

// Answers asks the API server for the least there is. One that refuses is there.
func (c *Client) Answers(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, firstWord)
	defer stop()
	if _, err := c.Text(ctx, "/version", nil); errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("ask the API server: no answer in %v", firstWord)
	}
	return nil
}

// Text reads what is at a path as it is, a pod's log say.
func (c *Client) Text(ctx context.Context, at string, query url.Values) ([]byte, error) {
	r := c.core.Get().AbsPath(at)
	for k, v := range query {
		r = r.Param(k, v[0])
	}
	answer := r.Do(ctx)
	b, err := answer.Raw()
	if err != nil {
		err = answer.Error() // with the server's words
	}
	switch {
	case apierrors.IsNotFound(err):
		return nil, fmt.Errorf("read %s: %w", at, ErrAbsent)
	case err != nil:
		return nil, fmt.Errorf("read %s: %w", at, err)
	}
	return b, nil
}

// mostOutput bounds what a command prints.
const mostOutput = 16 << 20

// Run runs a command in a pod's container, and returns what it printed, also
// where it ended with an error.
func (c *Client) Run(ctx context.Context, namespace, pod, container string, command []string) ([]byte, error) {
	out := limited{most: mostOutput}
	err := c.Talk(ctx, namespace, pod, container, command, nil, &out)
	return out.Bytes(), err
}

// Talk runs a command that reads in, unless that is nil, and prints to out. The
// command's input ends where in does, or the connection.
func (c *Client) Talk(ctx context.Context, namespace, pod, container string, command []string, in io.Reader, out io.Writer) error {
	r := c.core.Post().AbsPath(Path("v1", namespace, "pods", pod), "exec").Param("container", container).Param("stdout", "true").Param("stderr", "true")
	if in != nil {
		r = r.Param("stdin", "true")
	}
	for _, arg := range command {
		r = r.Param("command", arg)
	}
	exec, err := remotecommand.NewWebSocketExecutor(c.conf, "GET", r.URL().String())
	if err != nil {
		return fmt.Errorf("run %s in pod %s/%s: %w", command[0], namespace, pod, err)
	}
	problem := limited{most: 4096}
	if err := exec.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: out, Stderr: &problem}); err != nil {
		return fmt.Errorf("run %s in pod %s/%s: %w: %s", command[0], namespace, pod, err, bytes.TrimSpace(problem.Bytes()))
	}
	return nil
}

// limited is a buffer that refuses what does not fit.
type limited struct {
	bytes.Buffer
	most int
}

func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > l.most {
		return 0, fmt.Errorf("more than %d bytes", l.most)
	}
	return l.Buffer.Write(b)
}
