// SPDX-License-Identifier: Apache-2.0

// Package review presents a policy to a person who has to agree to it: as one
// HTML page, and as the difference to another policy in words.
//
// It reads the policy's data as the rules take it. Of rules that are not this
// project's it says only what it can: which requests have a rule at all.
package review

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"portcullis/engine/policytext"
	"portcullis/rules"
	"portcullis/rules/explain"
	"portcullis/rules/policydata"
)

// Subject is a policy that was read for review.
type Subject struct {
	Name    string             // what the reader calls it: a file name
	Text    []byte             // as measured
	Parts   policytext.Parts   // its parts, where it has policy_data
	Data    *policydata.Policy // nil where the policy has no policy_data that can be read
	Rules   Rules
	Answers []Answer // in the order of the agent's methods
	Waives  bool     // AllowRequestsFailingPolicy: denials are warnings
}

// Rules says whose rules a policy has.
type Rules string

// Values of Rules.
const (
	Held         Rules = "held"          // of this release, by digest
	HeldUpstream Rules = "held upstream" // of this release, for data in upstream's shape
	Like         Rules = "like"          // not of this release, with the same checks by name
	Unknown      Rules = "unknown"       // from another tool
)

// Answer is what a policy says to one kind of request.
type Answer struct {
	Request string
	Stance  rules.Stance // allowed: whatever it holds
	Checks  string       // one or two sentences
}

// Load reads a policy text, full or compact. Its shape and its rules decide how
// much can be said; only a text that is no policy is an error.
func Load(ctx context.Context, name string, text []byte) (*Subject, error) {
	e, err := explain.New(text)
	if err != nil {
		return nil, err
	}
	s := &Subject{Name: name, Text: text, Rules: Unknown}
	if parts, err := policytext.Split(text); err == nil {
		s.Parts = parts
	}
	data, err := e.Data(ctx)
	switch {
	case err == nil:
		s.Data, s.Rules = data, s.whose()
	case !errors.Is(err, policytext.ErrForm):
		return nil, err
	case policydata.IsUpstream(s.Parts.Data):
		if s.Data, err = upstream(ctx, s.Parts.Data); err != nil {
			s.Data = nil // in the shape of a release that our rules do not read
		}
	}
	if s.Waives, _, err = e.Answers(ctx, "AllowRequestsFailingPolicy"); err != nil {
		return nil, err
	}
	return s, s.answer(ctx, e)
}

func (s *Subject) whose() Rules {
	switch s.Parts.Digest {
	case policytext.DigestOf([]byte(rules.Text())):
		return Held
	case policytext.DigestOf([]byte(rules.UpstreamText())):
		return HeldUpstream
	}
	return Like
}

// upstream reads data in upstream's shape as our rules for that shape do.
func upstream(ctx context.Context, data []byte) (*policydata.Policy, error) {
	e, err := explain.New(slices.Concat([]byte(rules.UpstreamText()), []byte("\npolicy_data := "), data, []byte("\n")))
	if err != nil {
		return nil, err
	}
	return e.Data(ctx)
}

// answer asks the policy about every kind of request.
func (s *Subject) answer(ctx context.Context, e *explain.Explainer) error {
	for _, entry := range rules.Entries() {
		allowed, known, err := e.Answers(ctx, entry.Request)
		if err != nil {
			return err
		}
		a := Answer{Request: entry.Request, Stance: rules.Checked, Checks: entry.Checks}
		switch {
		case allowed:
			a.Stance, a.Checks = rules.Allowed, "Whatever it holds."
		case !known:
			a.Stance, a.Checks = rules.Denied, "The policy has no rule for it."
		case s.Rules == Unknown && e.Denies(entry.Request):
			a.Stance, a.Checks = rules.Denied, "Whatever it holds."
		case s.Rules == Unknown:
			a.Checks = "Decided by rules that this program does not know."
		case s.denies(entry):
			a.Stance = rules.Denied
		}
		s.Answers = append(s.Answers, a)
	}
	return nil
}

// denies says whether our rules deny a request unless the policy asks for it, and the policy does not.
func (s *Subject) denies(entry rules.Entry) bool {
	if entry.Default != rules.Denied {
		return false
	}
	r := s.Data.Requests
	stdin := slices.ContainsFunc(slices.Collect(maps.Values(s.Data.Containers)), func(c *policydata.Container) bool { return c.Stdin })
	opened := map[string]bool{
		"UpdateEphemeralMountsRequest": r.UpdateEphemeralMounts, "GetDiagnosticDataRequest": r.GetDiagnosticData,
		"ReadStreamRequest": r.ReadStream, "WriteStreamRequest": r.WriteStream || r.Exec.Stdin || stdin,
		"CloseStdinRequest": r.CloseStdin || r.WriteStream || r.Exec.Stdin || stdin,
	}
	return !opened[entry.Request] && !slices.Contains(r.Allow, entry.Request)
}

// stance is the answer to one kind of request.
func (s *Subject) stance(request string) rules.Stance {
	for _, a := range s.Answers {
		if a.Request == request {
			return a.Stance
		}
	}
	return rules.Denied
}

// Digest is the SHA-256 of the text in hex: what the hardware is given.
func (s *Subject) Digest() string { return fmt.Sprintf("%x", sha256.Sum256(s.Text)) }

// names are the containers, the sandbox first, then by name.
func (s *Subject) names() []string {
	if s.Data == nil {
		return nil
	}
	return slices.SortedFunc(maps.Keys(s.Data.Containers), func(a, b string) int {
		if first := policydata.SandboxContainer; a == first || b == first {
			return map[bool]int{true: -1, false: 1}[a == first]
		}
		return strings.Compare(a, b)
	})
}

// Called is a container's name for people.
func Called(name string) string {
	if name == policydata.SandboxContainer {
		return "sandbox (pause)"
	}
	return name
}
