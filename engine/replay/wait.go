// SPDX-License-Identifier: Apache-2.0

package replay

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/trace"
	"portcullis/internal/strictjson"
)

const (
	waitProcess     = "WaitProcessRequest"
	waited          = "WaitProcessResponse"
	createContainer = "CreateContainerRequest"
	removeContainer = "RemoveContainerRequest"
	signalProcess   = "SignalProcessRequest"
)

// maxWaits bounds how many answers are remembered that a recording does not show. A pod waits for one init container at a time.
const maxWaits = 4

// waits are the containers whose end was waited for, where the recording shows no answers: nobody but a gate writes them down.
type waits struct {
	open  []wait
	shown bool
}

type wait struct {
	id   string
	line int
}

// process is of a request what says whose process it is about.
type process struct {
	Container string `json:"container_id"`
	Exec      string `json:"exec_id"`
}

func (p process) own() bool { return p.Exec == "" || p.Exec == p.Container }

// take remembers an allowed wait for a container's own process.
func (w *waits) take(record trace.Record, allowed bool) {
	if record.Kind == waited {
		w.shown, w.open = true, nil
	}
	var p process
	if w.shown || !allowed || record.Kind != waitProcess || strictjson.Unmarshal(record.Request, &p) != nil || !p.own() {
		return
	}
	if slices.ContainsFunc(w.open, func(o wait) bool { return o.id == p.Container }) {
		return // shims wait once more for what has ended
	}
	w.open = append(w.open, wait{p.Container, record.Line})
	w.open = w.open[max(0, len(w.open)-maxWaits):]
}

// ended looks for a container whose process, had it ended by itself with exit code 0, would make a denied CreateContainer
// allowed, and whose end the recording does not show. The session then goes on as if it had. Where a part of the reason remains,
// the request was denied either way, and that part is what is to be told.
func (s *Session) ended(ctx context.Context, denied Decision, now step) (Decision, error) {
	if now.record.Kind != createContainer {
		return denied, nil
	}
	history, told := s.history, denied
	for i := len(s.waits.open) - 1; i >= 0; i-- {
		w := s.waits.open[i]
		d, err := s.hadEnded(ctx, w, now)
		if err != nil {
			return denied, err
		}
		if d.Outcome == Allowed {
			s.waits.open = append(s.waits.open[:i:i], s.waits.open[i+1:]...)
			d.Outcome, d.Reason, d.Missing = Unknown, denied.Reason, fmt.Sprintf("how the process ended that line %d waits for", w.line)
			return d, nil
		}
		if remains(d.Reason, told.Reason) {
			told = d
		}
		s.history = history
	}
	return told, s.restore(ctx, now.before)
}

// remains reports whether a reason is some of the findings of another, and not all.
func remains(reason, of string) bool {
	all, some := strings.Split(of, "; "), strings.Split(reason, "; ")
	for _, finding := range some {
		if !slices.Contains(all, finding) {
			return false
		}
	}
	return len(some) < len(all)
}

// hadEnded judges a request once more, with the answer to a wait put in: now, or before the container was signalled or removed, as
// shims do with one that has ended.
func (s *Session) hadEnded(ctx context.Context, w wait, now step) (Decision, error) {
	history, at, before := s.history, len(s.history), now.before
	for i := len(history) - 1; i >= 0 && history[i].record.Line > w.line; i-- {
		var p process
		kind := history[i].record.Kind
		if (kind == removeContainer || kind == signalProcess) && strictjson.Unmarshal(history[i].record.Request, &p) == nil && p.Container == w.id {
			at, before = i, history[i].before
		}
	}
	if err := s.restore(ctx, before); err != nil {
		return Decision{}, err
	}
	s.history = append([]step{}, history[:at]...)
	text, err := json.Marshal(map[string]any{"request": map[string]any{"container_id": w.id, "exec_id": w.id}, "response": map[string]any{"status": 0}})
	if err != nil {
		return Decision{}, err
	}
	answer, err := Input(trace.Record{Kind: waited, Request: text})
	if err != nil {
		return Decision{}, err
	}
	v, err := s.engine.Observe(ctx, engine.Request{EntryPoint: waited, Input: func(*engine.Policy) (ast.Value, error) { return answer, nil }})
	if err != nil || !v.Allowed || !v.Holds() {
		return Decision{}, ctx.Err() // nothing that the policy looks at
	}
	if err := v.Commit(); err != nil {
		return Decision{}, err
	}
	for _, later := range history[at:] {
		if _, err := s.once(ctx, later.record, later.input); err != nil {
			return Decision{}, err
		}
	}
	return s.once(ctx, now.record, now.input)
}
