// SPDX-License-Identifier: Apache-2.0

package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"

	"portcullis/engine"
	"portcullis/engine/binding"
	"portcullis/engine/trace"
)

const (
	// setPolicyRule decides whether the policy may be deleted or replaced.
	setPolicyRule = "SetPolicyRequest"
	// waiverRule makes agents let pass what the policy denies. It is constant for a policy's life.
	waiverRule = "AllowRequestsFailingPolicy"
)

// slot is the place of the one policy, with what may be done to it.
type slot struct {
	Config

	mu    sync.RWMutex // held for reading while a request is judged, so that none outlasts its policy; taken before all locks of the chain
	id    string
	named bool // id comes from a PUT
	phase phase
}

// phase is what may happen next.
type phase int

const (
	filled phase = iota // a policy decides; it says whether it may be replaced
	vacant              // it was deleted: nothing is allowed, and one PUT is taken
	sealed              // a PUT was refused: nothing is allowed any more
)

func newSlot(c Config) *slot {
	if c.ID == "" {
		c.ID = "default"
	}
	return &slot{Config: c, id: c.ID}
}

// held is the policy that is there, or nil.
func (s *slot) held() (id string, text []byte) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.phase != filled {
		return "", nil
	}
	return s.id, s.Engine.Active().Text()
}

// hasRule says whether path is a rule of the policy that decides.
func (s *slot) hasRule(path []string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.phase == filled && isRule(path) && s.Engine.Active().Has(path[1])
}

// packageName is the only package.
const packageName = "agent_policy"

func isRule(path []string) bool { return len(path) == 2 && path[0] == packageName }

// isRequest says whether a path is that of a decision, named after a message. To ask for anything else lets nothing through.
func isRequest(path []string) bool { return isRule(path) && strings.HasSuffix(path[1], "Request") }

// ask gives the document at path below data, nil when it is undefined. A decision counts: its ops are carried out, and only
// its bool is the answer, as there is no agent here whose success could be waited for.
func (s *slot) ask(ctx context.Context, path []string, in input) (ast.Value, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if len(path) == 0 {
		return s.all(ctx, in)
	}
	if s.phase != filled || path[0] != packageName {
		return nil, nil
	}
	err := s.Policies.Denial()
	switch {
	case hasCode(err, binding.CodeNotSet) && isRule(path) && path[1] == setPolicyRule:
		return s.document(ctx, path[1:], in)
	case err != nil:
		return nil, nil
	case isRequest(path) && s.Engine.Active().Has(path[1]):
		return s.decision(ctx, path[1], in)
	case isRule(path) && path[1] == waiverRule && !s.Engine.Active().AllowsFailing():
		return s.unwaived(ctx, in)
	}
	return s.document(ctx, path[1:], in)
}

// unwaived is the waiver of a policy that did not waive when it was activated: it stays so, whatever the state and the input.
func (s *slot) unwaived(ctx context.Context, in input) (ast.Value, error) {
	v, err := s.document(ctx, []string{waiverRule}, in)
	if err != nil || v == nil || v.Compare(ast.Boolean(true)) != 0 {
		return v, err
	}
	return ast.Boolean(false), nil
}

// all is the whole data document: the package, or nothing in it.
func (s *slot) all(ctx context.Context, in input) (ast.Value, error) {
	data := ast.NewObject()
	if s.phase != filled || s.Policies.Denial() != nil {
		return data, nil
	}
	v, err := s.document(ctx, nil, in)
	if err != nil {
		return nil, err
	}
	if v != nil {
		data.Insert(ast.StringTerm(packageName), ast.NewTerm(v))
	}
	return data, nil
}

func (s *slot) document(ctx context.Context, path []string, in input) (ast.Value, error) {
	x, err := in.value()
	if err != nil {
		return nil, err
	}
	v, _, err := s.Engine.Query(ctx, path, x)
	return v, err
}

// decision has the policy judge. What the policy does not allow is looked at once more for its document: agents tell false from
// undefined.
func (s *slot) decision(ctx context.Context, name string, in input) (ast.Value, error) {
	v, err := s.admit(ctx, name, in)
	var denied *binding.Error
	switch {
	case errors.As(err, &denied):
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer v.Discard()
	allowed := v.Allowed && !v.Waived // the agent itself waives, by AllowRequestsFailingPolicy
	if allowed {
		if err := s.recorded(v.Commit()); err != nil {
			return nil, err
		}
	}
	s.record(name, in, v)
	if allowed {
		return ast.Boolean(true), nil
	}
	doc, err := s.document(ctx, []string{name}, in)
	if err != nil || doc == nil {
		return nil, err
	}
	if isDecision(doc) {
		return ast.Boolean(false), nil
	}
	return doc, nil
}

// admit has the policy decide for which the input's key is made.
func (s *slot) admit(ctx context.Context, name string, in input) (*engine.Verdict, error) {
	value := in.value
	if len(in) > maxKeyed { // to read it is not to count as evaluation, which has a deadline
		value = sync.OnceValues(in.value)
		if _, err := value(); err != nil {
			return nil, err
		}
	}
	for {
		p := s.Engine.Active()
		v, err := s.Policies.Admit(ctx, engine.Request{EntryPoint: name, Lenient: true, Key: in.key(p, name), Input: func(*engine.Policy) (ast.Value, error) {
			return value()
		}})
		if err != nil || v.Policy == p {
			return v, err
		}
		v.Discard() // a gate beside this server has taken another policy meanwhile
	}
}

// isDecision says whether a document could be taken for a decision.
func isDecision(v ast.Value) bool {
	switch v := v.(type) {
	case ast.Boolean:
		return true
	case ast.Object:
		return v.Get(ast.StringTerm("allowed")) != nil
	}
	return false
}

// recorded turns an error of the journal into an answer.
func (s *slot) recorded(err error) error {
	if err == nil {
		return nil
	}
	s.Log.Error("journal cannot be written", "error", err)
	return failure(http.StatusInternalServerError, codeInternal, "the restart journal cannot be written")
}

func (s *slot) record(name string, in input, v *engine.Verdict) {
	if v.Reason != "" {
		s.Log.Debug("not allowed", "request", name, "reason", v.Reason)
	}
	if s.Trace == nil {
		return
	}
	s.Trace.Record(trace.Event{Kind: name, Request: json.RawMessage(in), Allowed: v.Allowed, Reason: v.Reason, Time: time.Now()})
}

// put makes text the policy.
func (s *slot) put(ctx context.Context, id string, text []byte) error {
	ctx = context.WithoutCancel(ctx) // whoever hangs up must not leave half of it done
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.phase == sealed:
		return failure(http.StatusForbidden, codeForbidden, "a policy was refused before, and nothing is allowed since")
	case s.phase == filled && s.named && id != s.id:
		return failure(http.StatusBadRequest, codeParameter, "one policy is held here, and it is %q", s.id)
	case bytes.Equal(text, s.Engine.Active().Text()):
		return s.putBack(id)
	}
	err := s.Policies.SetPolicy(ctx, text)
	if err == nil {
		s.id, s.named, s.phase = id, true, filled
		return nil
	}
	if s.phase == vacant || !hasCode(err, binding.CodeForbidden) && !hasCode(err, binding.CodeInitdataLocked) {
		s.seal(err)
	}
	return policyRefusal(id, err)
}

// putBack takes the text that decides already, or did before it was deleted: the default policy at the start, or a policy that
// is bound. Its state goes on.
func (s *slot) putBack(id string) error {
	if s.phase == vacant {
		if err := s.recorded(s.Policies.Resume()); err != nil {
			return err
		}
	}
	s.id, s.named, s.phase = id, true, filled
	return nil
}

// seal ends all: the agent takes the refused policy for the one that decides, so no other may.
func (s *slot) seal(err error) {
	s.phase = sealed
	code := binding.CodePolicyInvalid
	var e *binding.Error
	if errors.As(err, &e) {
		code, err = e.Code, e.Err
	}
	s.Policies.Deny(code, fmt.Errorf("a policy was put and refused: %w", err))
	_ = s.recorded(s.Policies.Suspend()) // it is in the log, and this process denies all the same
}

// delete takes the policy away, if it allows that.
func (s *slot) delete(ctx context.Context, id string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.phase != filled || id != s.id {
		return noPolicy(id)
	}
	if err := s.Policies.Denial(); err != nil && !hasCode(err, binding.CodeNotSet) {
		return policyRefusal(id, &binding.Error{Code: binding.CodeForbidden, Err: err})
	}
	v, err := s.Engine.Judge(ctx, engine.Request{EntryPoint: setPolicyRule, Input: func(*engine.Policy) (ast.Value, error) {
		return ast.NewObject(), nil
	}})
	if err != nil {
		return policyRefusal(id, &binding.Error{Code: binding.CodeForbidden, Err: err})
	}
	v.Discard()
	if !v.Allowed || v.Waived {
		return policyRefusal(id, &binding.Error{Code: binding.CodeForbidden, Err: fmt.Errorf("the policy does not allow it: %s", v.Reason)})
	}
	if err := s.recorded(s.Policies.Suspend()); err != nil {
		return err
	}
	s.phase = vacant
	s.Log.Info("policy deleted, nothing is allowed until one is put")
	return nil
}

func hasCode(err error, code binding.Code) bool {
	var e *binding.Error
	return errors.As(err, &e) && e.Code == code
}
