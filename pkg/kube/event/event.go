// Package event tells users, by Events on their objects, what they must know.
// Inputs are sentences about objects, said as long as they are true and by
// whoever sees it; outputs are Kubernetes Events, one for each sentence. It
// refuses to say the same again within half an hour, to say more than a few
// things about one object, and to write faster than once a second.
package event

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"poplin.dev/poplin/pkg/cluster"
	"poplin.dev/poplin/pkg/cluster/reason"
)

// Event is one sentence about an object.
type Event struct {
	About   cluster.Reference
	Reason  reason.Reason
	Message string
}

// Writer writes Events.
type Writer struct {
	// Core is the API server's core group.
	Core rest.Interface
	// Component and Instance sign: the program, and its node or pod.
	Component, Instance string
}

// object is a core/v1 Event.
type object struct {
	APIVersion         string            `json:"apiVersion"`
	Kind               string            `json:"kind"`
	Metadata           metav1.ObjectMeta `json:"metadata"`
	Involved           reference         `json:"involvedObject"`
	Reason             string            `json:"reason"`
	Message            string            `json:"message"`
	Type               string            `json:"type"`
	Source             source            `json:"source"`
	ReportingComponent string            `json:"reportingComponent"`
	ReportingInstance  string            `json:"reportingInstance"`
	times
}

type reference struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"`
	Name       string `json:"name"`
	UID        string `json:"uid"`
}

type source struct {
	Component string `json:"component"`
	Host      string `json:"host,omitempty"`
}

// times are what changes of an Event that is said again.
type times struct {
	First *metav1.Time `json:"firstTimestamp,omitempty"`
	Last  metav1.Time  `json:"lastTimestamp"`
	Count int          `json:"count"`
}

const (
	// maxMessage is the API server's limit.
	maxMessage   = 1024
	writeTimeout = 10 * time.Second
)

// Create writes an Event, unless there is one that says the same: its name
// derives from what is said, so that a program that starts again, or many
// that see the same, say it once within the hour that Events live.
func (w Writer) Create(ctx context.Context, e Event) (created bool, err error) {
	now := metav1.Now()
	o := object{
		APIVersion: "v1", Kind: "Event",
		Metadata: metav1.ObjectMeta{Namespace: e.namespace(), Name: e.name()},
		Involved: reference{e.About.APIVersion, e.About.Kind, e.About.Namespace, e.About.Name, e.About.UID},
		Reason:   e.Reason.String(), Message: e.message(), Type: e.Reason.Type(),
		Source:             source{w.Component, w.Instance},
		ReportingComponent: w.Component, ReportingInstance: w.Instance,
		times: times{&now, now, 1},
	}
	err = w.do(ctx, w.Core.Post(), e, o)
	switch {
	case apierrors.IsAlreadyExists(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("write Event about %s: %w", e.About, err)
	}
	return true, nil
}

// Repeat says again what this program said before; false says that the Event
// does not live any more.
func (w Writer) Repeat(ctx context.Context, e Event, count int) (bool, error) {
	err := w.do(ctx, w.Core.Patch(types.MergePatchType).Name(e.name()), e, times{nil, metav1.Now(), count})
	switch {
	case apierrors.IsNotFound(err):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("repeat Event about %s: %w", e.About, err)
	}
	return true, nil
}

func (w Writer) do(ctx context.Context, r *rest.Request, e Event, what any) error {
	body, err := json.Marshal(what)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	// Patches have a type of their own, which client-go sets.
	if _, created := what.(object); created {
		r.SetHeader("Content-Type", "application/json")
	}
	return r.Namespace(e.namespace()).Resource("events").Body(body).Do(ctx).Error()
}

// namespace: Events about what has none are in default.
func (e Event) namespace() string {
	if e.About.Namespace == "" {
		return metav1.NamespaceDefault
	}
	return e.About.Namespace
}

func (e Event) name() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{e.About.Kind, e.About.UID, e.Reason.String(), e.Message}, "\x00")))
	return e.About.Name[:min(len(e.About.Name), 230)] + "." + hex.EncodeToString(sum[:8])
}

func (e Event) message() string {
	if len(e.Message) <= maxMessage {
		return e.Message
	}
	return strings.ToValidUTF8(e.Message[:maxMessage-3], "") + "..."
}
