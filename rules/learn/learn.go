// SPDX-License-Identifier: Apache-2.0

package learn

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"portcullis/engine"
	"portcullis/engine/replay"
	"portcullis/engine/trace"
	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

// ErrBound is wrapped by Learn where a request asks for what settings must not give.
var ErrBound = errors.New("this is not for settings to allow")

// maxRounds bounds how often a policy is made again: a round that teaches nothing ends before.
const maxRounds = 200

// Learner learns from the recording of one pod.
type Learner struct {
	// Make gives the policy text of the pod under the settings with the lessons over them.
	Make      func(ctx context.Context, lessons []Lesson) ([]byte, error)
	Recording []trace.Record

	compiler *engine.Compiler
}

// Learned is what came of it.
type Learned struct {
	Lessons []Lesson
	Left    []string // requests that stay denied without keeping the pod from running, in words
}

// Learn gives the fewest lessons under which every request of the recording is allowed, but those in Left. An error that wraps
// ErrBound names the request and the place that no setting may loosen.
func (l *Learner) Learn(ctx context.Context) (*Learned, error) {
	var lessons []Lesson
	for range maxRounds {
		got, err := l.replay(ctx, lessons)
		if err != nil {
			return nil, err
		}
		if got.denied == nil {
			if lessons, err = l.needed(ctx, lessons); err != nil {
				return nil, err
			}
			return &Learned{lessons, got.left}, nil
		}
		more, err := got.denied.lessons()
		if err != nil {
			return nil, err
		}
		before := len(lessons)
		for _, lesson := range more {
			if lessons, err = add(lessons, lesson); err != nil {
				return nil, err
			}
		}
		if len(lessons) == before {
			return nil, fmt.Errorf("%s: %w: the setting that it asks for changes nothing for this pod", got.denied.sentence(), ErrBound)
		}
	}
	return nil, fmt.Errorf("learn settings: still denied after %d policies", maxRounds)
}

func add(lessons []Lesson, lesson Lesson) ([]Lesson, error) {
	for _, other := range lessons {
		if lesson.contradicts(other) {
			return nil, fmt.Errorf("%s wants another value of %s than %s: %w", lesson.Asked, keyText(lesson.Key), other.Asked, ErrBound)
		}
		if lesson.same(other) {
			return lessons, nil
		}
	}
	return append(lessons, lesson), nil
}

// needed leaves out each lesson without which the recording is allowed too.
func (l *Learner) needed(ctx context.Context, lessons []Lesson) ([]Lesson, error) {
	for i := len(lessons) - 1; i >= 0; i-- {
		without := slices.Delete(slices.Clone(lessons), i, i+1)
		got, err := l.replay(ctx, without)
		if err != nil {
			return nil, err
		}
		if got.denied == nil {
			lessons = without
		}
	}
	return lessons, nil
}

// replayed is how far a recording came.
type replayed struct {
	denied *denial // nil: to the end
	left   []string
}

// replay judges the recording in order until a request is denied.
func (l *Learner) replay(ctx context.Context, lessons []Lesson) (*replayed, error) {
	text, err := l.Make(ctx, lessons)
	if err != nil {
		return nil, err
	}
	if l.compiler == nil { // one for all rounds: it keeps compiled rules
		if l.compiler, err = engine.NewCompiler(engine.CompilerOptions{HeldRules: rules.Held()}); err != nil {
			return nil, err
		}
	}
	policy, err := l.compiler.Compile(ctx, text)
	if err != nil {
		return nil, err
	}
	e := engine.New(policy, engine.Options{})
	defer e.Close()
	session := replay.New(e)
	got := &replayed{}
	for _, record := range l.Recording {
		decision, err := session.Judge(ctx, record)
		if err != nil {
			return nil, err
		}
		if decision.Outcome == replay.Unknown {
			got.left = append(got.left, fmt.Sprintf("line %d, %s, unless the recording lacks %s", record.Line, record.Kind, decision.Missing))
		}
		if decision.Outcome != replay.Denied {
			continue
		}
		d, err := explained(ctx, text, record, decision.State, decision.Reason)
		if err != nil {
			return nil, err
		}
		if !d.left() {
			got.denied = d
			return got, nil
		}
		got.left = append(got.left, d.sentence())
	}
	return got, nil
}

// explained finds out why a policy denied a request in a state.
func explained(ctx context.Context, text []byte, record trace.Record, state json.RawMessage, reason string) (*denial, error) {
	why, err := explain.New(text)
	if err != nil {
		return nil, err
	}
	defer why.Close()
	x, err := why.Explain(ctx, explain.Question{Kind: record.Kind, Input: record.Request, State: state})
	if err != nil {
		return nil, fmt.Errorf("line %d: %w", record.Line, err)
	}
	x.AddReason(reason)
	data, err := why.Data(ctx)
	if err != nil {
		return nil, err
	}
	d := &denial{record: record, why: x, storages: data.Sandbox.Storages}
	if c := data.Containers[x.Container]; c != nil && record.Kind == createContainer {
		d.paths, d.storages = c.Paths, c.Storages
	}
	return d, nil
}

// Requests of which more than one place can be learned.
const (
	createSandbox   = "CreateSandboxRequest"
	createContainer = "CreateContainerRequest"
)

// denial is a request that was denied.
type denial struct {
	record   trace.Record
	why      *explain.Explanation
	paths    string               // key of common.paths of the container
	storages []policydata.Storage // that the policy has of the container, or of the pod
}

// streams are what the host reads and writes for kubectl logs and attach. A pod runs without them, and whether they are open is
// the owner's word.
var streams = map[string]bool{"ReadStreamRequest": true, "WriteStreamRequest": true, "CloseStdinRequest": true}

// afterwards are what a shim still sends of a container that is gone.
var afterwards = map[string]bool{"SignalProcessRequest": true, "WaitProcessRequest": true, "RemoveContainerRequest": true, "StatsContainerRequest": true}

// left says whether the denial keeps no pod from running: of a command too that the manifest does not have, since somebody ran it
// by hand (kubectl exec).
func (d *denial) left() bool {
	if streams[d.record.Kind] {
		return true
	}
	if d.record.Kind == "ExecProcessRequest" && len(d.why.Findings) > 0 && strings.HasPrefix(d.why.Findings[0].Path, "process.Args") {
		return true
	}
	return afterwards[d.record.Kind] && len(d.why.Findings) > 0 && strings.HasPrefix(explain.Words(d.why.Findings[0].Wanted), "no container has the id")
}

// sentence names the request and the first finding, without secrets.
func (d *denial) sentence() string {
	hidden := *d.why
	hidden.Findings = slices.Clone(d.why.Findings)
	hidden.Hide()
	return engine.OneLine(fmt.Sprintf("line %d, %s: %s", d.record.Line, d.record.Kind, hidden.Sentence()), 400)
}

// lessons are those of every finding. One that is not learnable refuses the whole request: there is no use in half of it.
func (d *denial) lessons() ([]Lesson, error) {
	var input request
	if !slices.Contains([]string{createSandbox, createContainer, "ExecProcessRequest"}, d.record.Kind) || len(d.why.Findings) == 0 {
		return nil, fmt.Errorf("%s: %w", d.sentence(), ErrBound)
	}
	if err := json.Unmarshal(d.record.Request, &input); err != nil && d.record.Kind != "ExecProcessRequest" {
		return nil, fmt.Errorf("%s: %w: %v", d.sentence(), ErrBound, err)
	}
	var all []Lesson
	for i, f := range d.why.Findings {
		q := &question{Finding: f, container: d.why.Container, paths: d.paths, storages: d.storages, id: input.ContainerID, input: &input}
		lesson, ok := lessonOf(q)
		if !ok {
			first := *d
			first.why = &explain.Explanation{}
			*first.why = *d.why
			first.why.Findings = d.why.Findings[i:]
			return nil, fmt.Errorf("%s: %w", first.sentence(), ErrBound)
		}
		lesson.Asked = asked(d.record.Kind, d.record.Line, f.Path)
		all = append(all, lesson)
	}
	return all, nil
}
