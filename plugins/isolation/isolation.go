// Package isolation has a pod wait until policies hold for it. Inputs are a
// question about a pod's addresses, the socket of the node's daemon and the
// file that it leaves for the time when it does not run; output is that the pod
// may send, or why not yet. It waits no longer than Patience, and refuses what
// it does not understand: no pod starts on a guess.
//
// The daemon speaks HTTP on its socket. A client of net/http would cost every
// pod the start of a program three times the size, so the one request there is
// is written by hand.
package isolation

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

const (
	// Patience is how long a pod waits for the daemon's answer.
	Patience = 2 * time.Second
	// Path is where the daemon takes questions.
	Path = "/isolation"
	// File is the name of the file in the directory of what outlives a reboot.
	File = "isolation.json"
)

// Question is whether policies hold for a pod that gets addresses.
type Question struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// UID is empty where the runtime does not say.
	UID string `json:"uid,omitempty"`
	// Sandbox is the container's id: what another one had is void.
	Sandbox   string       `json:"sandbox"`
	Addresses []netip.Addr `json:"addresses"`
}

// maxAddresses is more than a pod has.
const maxAddresses = 16

// ParseQuestion reads what Ask writes. Keys that it does not know are of a
// plugin newer than the daemon.
func ParseQuestion(text []byte) (Question, error) {
	var q Question
	if err := json.Unmarshal(text, &q); err != nil {
		return q, fmt.Errorf("read question: %w", err)
	}
	switch {
	case q.Namespace == "" || q.Name == "":
		return q, errors.New("read question: it is about no pod: give namespace and name")
	case q.Sandbox == "":
		return q, errors.New("read question: it names no sandbox")
	case len(q.Addresses) == 0 || len(q.Addresses) > maxAddresses:
		return q, fmt.Errorf("read question: a pod with %d addresses; it has 1 to %d", len(q.Addresses), maxAddresses)
	}
	for _, a := range q.Addresses {
		if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			return q, fmt.Errorf("read question: %s is no address of a pod", a)
		}
	}
	return q, nil
}

// Namespaces says of each that there is whether policies are about its pods.
type Namespaces map[string]bool

// version is raised when an older plugin could not read the file right.
const version = 1

type file struct {
	Version    int        `json:"version"`
	Namespaces Namespaces `json:"namespaces"`
}

// Marshal is the file's content.
func (n Namespaces) Marshal() ([]byte, error) {
	text, err := json.Marshal(file{version, n})
	return append(text, '\n'), err
}

// ParseNamespaces reads it.
func ParseNamespaces(text []byte) (Namespaces, error) {
	var f file
	if err := json.Unmarshal(text, &f); err != nil {
		return nil, err
	}
	if f.Version != version || f.Namespaces == nil {
		return nil, fmt.Errorf("its version is %d, this program knows %d", f.Version, version)
	}
	return f.Namespaces, nil
}

// Free reports whether pods of a namespace need not wait: it is known, and no
// policy is about its pods.
func (n Namespaces) Free(namespace string) bool {
	isolated, known := n[namespace]
	return known && !isolated
}
