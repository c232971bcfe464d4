// SPDX-License-Identifier: Apache-2.0

// Package record is the launch record: the facts of one pod's life, in their order, each measured before it takes effect.
//
// A [Fact] is one line of text in an event log. A [Pod] is what the facts so far amount to, for the guest, which must not record
// one twice, and for the verifier. A [Book] is the guest's side: it writes. The verifier's side, which holds a record against what
// the pod was to be, is in measure/evidence.
package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"portcullis/internal/strictjson"
	"portcullis/measure"
	"portcullis/measure/eventlog"
)

// Domain is the first word of every fact's text, as the attestation agent's event log wants one.
const Domain = "portcullis"

// ErrFact is returned for what is no fact, or one that is too long to be recorded.
var ErrFact = errors.New("not a fact of a pod's life")

// Kind is the second word of a fact's text.
type Kind string

// The kinds.
const (
	Policy    Kind = "policy"    // this policy decides from here on: Binding, Alg, Digest
	Fragment  Kind = "fragment"  // it decides from here on with this fragment: Digest, Feed, SVN, Issuer
	Sandbox   Kind = "sandbox"   // the pod's sandbox is made: ID
	Created   Kind = "created"   // a container is made: ID, Name, Image, Digest
	Started   Kind = "started"   // its process starts: ID
	Signalled Kind = "signalled" // the host signals its process: ID, Signal
	Ended     Kind = "ended"     // its process has ended: ID, Code
	Removed   Kind = "removed"   // it is taken away: ID
	Exec      Kind = "exec"      // another process starts in it: ID, Digest of its arguments
	Repeated  Kind = "repeated"  // an exec or a signal of this container came Count times more: ID, Of, Digest or Signal
	Failed    Kind = "failed"    // the agent refused what was recorded: ID, Of
	Complete  Kind = "complete"  // every container of the policy has been started and none of them is gone
	Broken    Kind = "broken"    // a container of a complete pod is gone: ID, Of
	More      Kind = "more"      // the record is full, and what comes behind it is not in it
)

// Fact is one fact. Which fields are set depends on its kind; the order of the fields is that in its text.
type Fact struct {
	Kind    Kind   `json:"-"`
	ID      string `json:"id,omitempty"`
	Name    string `json:"name,omitempty"`    // of the container, as its annotations say and the policy allows
	Image   string `json:"image,omitempty"`   // reference, as its annotation says and the policy allows
	Digest  string `json:"digest,omitempty"`  // of the image, the policy's text, a fragment's document or an exec's arguments, see [ArgsDigest]
	Binding string `json:"binding,omitempty"` // what Digest is of, where a policy comes into force: "policy" or "initdata"
	Alg     string `json:"alg,omitempty"`     // of that digest
	Of      Kind   `json:"of,omitempty"`
	Signal  uint32 `json:"signal,omitempty"`
	Code    *int32 `json:"code,omitempty"`  // exit code
	Count   uint64 `json:"count,omitempty"` // at least; those of a policyd that was killed are not counted
	Feed    string `json:"feed,omitempty"`
	SVN     uint64 `json:"svn,omitempty"`
	Issuer  string `json:"issuer,omitempty"` // of the fragment, as the policy's issuers name it
}

// Text is the fact in one line, "portcullis KIND JSON".
func (f Fact) Text() (string, error) {
	var content bytes.Buffer
	e := json.NewEncoder(&content)
	e.SetEscapeHTML(false)
	if err := e.Encode(f); err != nil {
		return "", fmt.Errorf("%w: %w", ErrFact, err)
	}
	text := Domain + " " + string(f.Kind) + " " + strings.TrimSuffix(content.String(), "\n")
	if len(text) > eventlog.MaxEvent {
		return "", fmt.Errorf("%w: %s of %d bytes, the limit is %d", ErrFact, f.Kind, len(text), eventlog.MaxEvent)
	}
	return text, nil
}

// Event is what is measured of the fact.
func (f Fact) Event() (measure.Event, error) {
	text, err := f.Text()
	if err != nil {
		return measure.Event{}, err
	}
	digest, err := eventlog.TextDigest("sha256", text)
	if err != nil {
		return measure.Event{}, err
	}
	return measure.Event{Type: eventlog.Pod, Binding: eventlog.Pod, Text: text, Alg: "sha256", Digest: digest, Len: int64(len(text))}, nil
}

// FragmentEvent is what a register that binds a policy takes of a fragment: the text of a [Fragment] fact.
func (f Fact) FragmentEvent() (measure.Event, error) {
	e, err := f.Event()
	e.Type, e.Binding = eventlog.Fragment, eventlog.Fragment
	return e, err
}

// kinds are those that a record may have.
var kinds = map[Kind]bool{Policy: true, Fragment: true, Sandbox: true, Created: true, Started: true, Signalled: true, Ended: true, Removed: true, Exec: true,
	Repeated: true, Failed: true, Complete: true, Broken: true, More: true}

// Parse reads the text of a fact. It returns [ErrFact] for any text that [Fact.Text] does not give.
func Parse(text string) (Fact, error) {
	domain, rest, _ := strings.Cut(text, " ")
	kind, content, ok := strings.Cut(rest, " ")
	if domain != Domain || !ok || !kinds[Kind(kind)] {
		return Fact{}, fmt.Errorf("%w: %.60q", ErrFact, text)
	}
	var f Fact
	if err := strictjson.Unmarshal([]byte(content), &f); err != nil {
		return Fact{}, fmt.Errorf("%w: %.60q: %w", ErrFact, text, err)
	}
	f.Kind = Kind(kind)
	if again, err := f.Text(); err != nil || again != text {
		return Fact{}, fmt.Errorf("%w: %.60q is not in canonical form", ErrFact, text)
	}
	return f, nil
}

// Read returns the facts of a log's records of the pod.
func Read(records []eventlog.Record) ([]Fact, error) {
	facts := make([]Fact, 0, len(records))
	for _, r := range records {
		f, err := Parse(r.Content.Event)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", r.Num, err)
		}
		facts = append(facts, f)
	}
	return facts, nil
}
