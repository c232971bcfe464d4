// SPDX-License-Identifier: Apache-2.0

package binding_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"portcullis/engine"
	"portcullis/engine/binding"
)

func TestOnlyWhatTheLauncherBoundIsTaken(t *testing.T) {
	r := &recorder{}
	p := newBench(t).start(binding.Config{Field: &field{digest: digest(good)}, Recorder: r, Strict: true}, openDefault, false)
	p.denies(binding.CodeNotSet)
	p.refuses(good2, binding.CodeDigestMismatch)
	p.denies(binding.CodeNotSet)
	p.set(good)
	p.allows("ExecProcessRequest", `{}`)
	if got := strings.Join(r.records, ", "); got != "policy false, policy true" {
		t.Errorf("event log: %s", got)
	}
}

func TestChainKeepsItsOrder(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"good", good, "compare record"},
		{"another digest", good2, "compare record"},
		{"too large", strings.Repeat("#", engine.MaxText+1), ""},
		{"not UTF-8", "package agent_policy\n\xff", ""},
	} {
		seq := &sequence{}
		p := newBench(t).start(binding.Config{Field: &field{digest(good), seq}, Recorder: &recorder{seq: seq}}, closedDefault, false)
		_ = p.chain.SetPolicy(t.Context(), []byte(tt.text))
		if seq.String() != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, seq, tt.want)
		}
	}
	for _, bad := range []string{"package agent_policy\n\nx := }\n", ""} {
		seq := &sequence{}
		p := newBench(t).start(binding.Config{Field: &field{digest(bad), seq}, Register: &register{seq: seq}}, closedDefault, false)
		p.refuses(bad, binding.CodePolicyInvalid)
		if strings.Contains(seq.String(), "measure") {
			t.Errorf("%q was measured and does not compile", bad)
		}
	}
}

// TestPolicyBytes: the digest is over the exact bytes, and nothing is trimmed or normalised on the way to it.
func TestPolicyBytes(t *testing.T) {
	const text = "package agent_policy\n\ndefault ExecProcessRequest := true\n"
	comment := func(n int) string { return text + "#" + strings.Repeat("x", n-len(text)-1) }
	tests := []struct {
		name, bytes string
		code        binding.Code // when the field binds text
		itself      binding.Code // when the field binds these bytes
	}{
		{"as bound", text, "", ""},
		{"trailing LF added", text + "\n", binding.CodeDigestMismatch, ""},
		{"trailing LF removed", strings.TrimSuffix(text, "\n"), binding.CodeDigestMismatch, ""},
		{"CRLF", strings.ReplaceAll(text, "\n", "\r\n"), binding.CodeDigestMismatch, ""},
		{"BOM", "\xef\xbb\xbf" + text, binding.CodePolicyInvalid, binding.CodePolicyInvalid},
		{"base64 of itself", base64.StdEncoding.EncodeToString([]byte(text)), binding.CodeDigestMismatch, binding.CodePolicyInvalid},
		{"NUL", text + "\x00", binding.CodePolicyInvalid, binding.CodePolicyInvalid},
		{"invalid UTF-8", text + "\xff", binding.CodePolicyInvalid, binding.CodePolicyInvalid},
		{"2 MiB - 1", comment(engine.MaxText - 1), binding.CodeDigestMismatch, ""},
		{"2 MiB", comment(engine.MaxText), binding.CodeDigestMismatch, ""},
		{"2 MiB + 1", comment(engine.MaxText + 1), binding.CodePolicyTooLarge, binding.CodePolicyTooLarge},
		{"empty", "", binding.CodePolicyInvalid, binding.CodePolicyInvalid},
		{"only comments", "# nothing\n", binding.CodeDigestMismatch, binding.CodePolicyInvalid},
		{"wrong package", "package other\n\ndefault ExecProcessRequest := true\n", binding.CodeDigestMismatch, binding.CodePolicyInvalid},
		{"syntax error", text + "x := }\n", binding.CodeDigestMismatch, binding.CodePolicyInvalid},
		{"two packages", text + "package agent_policy\n", binding.CodeDigestMismatch, binding.CodePolicyInvalid},
		{"composed and decomposed are not the same", text + "# \u00e9\n", binding.CodeDigestMismatch, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for bound, code := range map[string]binding.Code{text: tt.code, tt.bytes: tt.itself} {
				if bound == text && tt.bytes == text {
					code = ""
				}
				r := &register{}
				p := newBench(t).start(binding.Config{Field: &field{digest: digest(bound)}, Register: r, Strict: true}, closedDefault, false)
				p.refuses(tt.bytes, code)
				if code != "" && r.extends != 0 {
					t.Error("a refused policy was measured")
				}
				if code == "" && !bytes.Equal(p.engine.Active().Text(), []byte(tt.bytes)) {
					t.Error("the active text is not what was sent")
				}
			}
		})
	}
}

func TestSameBytesAgainKeepTheState(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Open: true}, closedDefault, false)
	p.set(good)
	p.allows("CreateContainerRequest", `{"id": "a"}`)
	before, generation := p.state(), p.engine.Generation()
	p.set(good)
	if p.state() != before || p.engine.Generation() != generation || r.extends != 1 {
		t.Errorf("state %s, generation %d, %d extends; want %s, %d, 1", p.state(), p.engine.Generation(), r.extends, before, generation)
	}
}

func TestRogueContainerFirstThenTheGoodPolicy(t *testing.T) {
	for _, update := range []bool{false, true} {
		r := &register{}
		p := newBench(t).start(binding.Config{Register: r, Open: true, Update: update}, openDefault, false)
		p.allows("CreateContainerRequest", `{"id": "rogue"}`)
		p.refuses(good, binding.CodeAlreadyRunning)
		if r.extends != 0 {
			t.Errorf("update %t: the policy was measured", update)
		}
		p.allows("ExecProcessRequest", `{}`) // the default policy still decides
	}
}

func TestChecksDoNotCountAsRunning(t *testing.T) {
	p := newBench(t).start(binding.Config{Open: true}, openDefault, false)
	p.allows("CheckRequest", `{}`)
	p.set(good)
}

func TestCurrentPolicyForbidsAnother(t *testing.T) {
	for _, update := range []bool{false, true} {
		r := &register{}
		p := newBench(t).start(binding.Config{Register: r, Update: update}, closedDefault, false)
		p.set(locked)
		p.refuses(good, binding.CodeForbidden)
		if r.extends != 1 {
			t.Errorf("%d extends, want 1", r.extends)
		}
	}
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r}, "package agent_policy\n", false)
	p.refuses(good, binding.CodeForbidden)
	if r.extends != 0 {
		t.Error("a default policy that allows no SetPolicy let one be measured")
	}
}

func TestBoundPolicyIsForLife(t *testing.T) {
	for name, c := range map[string]binding.Config{
		"field":    {Field: &field{digest: digest(good)}},
		"register": {Register: &register{}},
	} {
		p := newBench(t).start(c, closedDefault, false)
		p.set(good)
		p.refuses(good2, binding.CodeAlreadySet)
		p.allows("ExecProcessRequest", `{}`)
		if name == "register" && c.Register.(*register).extends != 1 {
			t.Error("the second policy was measured")
		}
	}
}

func TestUpdateIsMeasuredAndKeepsTheContainers(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Update: true}, closedDefault, false)
	p.set(good)
	p.allows("CreateContainerRequest", `{"id": "a"}`)
	before := p.state()
	p.set(good2)
	if p.state() != before {
		t.Errorf("state %s, want %s", p.state(), before)
	}
	if r.extends != 2 {
		t.Errorf("%d extends, want 2", r.extends)
	}
	p.allows("ExecProcessRequest", `{}`)
}

func TestPolicyThatWaivesDenialsIsRefusedWhereBound(t *testing.T) {
	waives := good + "\nAllowRequestsFailingPolicy := true\n"
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Strict: true}, closedDefault, false)
	p.refuses(waives, binding.CodePolicyWaives)
	if r.extends != 0 {
		t.Error("it was measured")
	}
	newBench(t).start(binding.Config{Open: true}, closedDefault, false).set(waives)
}

func TestDeniedForGood(t *testing.T) {
	why := &binding.Error{Code: binding.CodeFieldZero, Err: errors.New("nothing was bound")}
	r := &register{}
	p := newBench(t).start(binding.Config{Denied: why, Register: r, Open: true}, openDefault, false)
	if codeOf(p.startup) != binding.CodeFieldZero {
		t.Errorf("Start: %v", p.startup)
	}
	for range 3 {
		p.refuses(good, binding.CodeFieldZero)
	}
	p.denies(binding.CodeFieldZero)
	if r.extends != 0 {
		t.Error("something was measured")
	}
}

func TestFailedMeasurementLetsNobodyThroughUntilOneSucceeds(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Open: true}, openDefault, false)
	r.fail = errors.New("TPM does not answer")
	p.refuses(good, binding.CodePCRExtend)
	p.denies(binding.CodePCRExtend)
	r.fail = &binding.Error{Code: binding.CodePCRUnexpected, Err: errors.New("surprise")}
	p.refuses(good, binding.CodePCRUnexpected)
	p.denies(binding.CodePCRUnexpected)
	r.fail = nil
	p.set(good)
	p.allows("ExecProcessRequest", `{}`)
}

func TestUnwritableEventLogRefuses(t *testing.T) {
	p := newBench(t).start(binding.Config{Field: &field{digest: digest(good)}, Recorder: &recorder{fail: errors.New("no space")}}, closedDefault, false)
	p.refuses(good, binding.CodeLogFailed)
	p.denies(binding.CodeLogFailed)
}

// TestParallelSetPolicy: one winner, one extend.
func TestParallelSetPolicy(t *testing.T) {
	for _, tt := range []struct {
		name   string
		text   func(int) string
		winner int64
	}{
		{"the same", func(int) string { return good }, 64},
		{"different", func(i int) string { return good + fmt.Sprintf("# %d\n", i) }, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := &register{}
			p := newBench(t).start(binding.Config{Register: r}, closedDefault, false)
			var taken atomic.Int64
			var wg sync.WaitGroup
			for i := range 64 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					err := p.chain.SetPolicy(t.Context(), []byte(tt.text(i)))
					switch codeOf(err) {
					case "":
						taken.Add(1)
					case binding.CodeAlreadySet:
					default:
						t.Errorf("SetPolicy: %v", err)
					}
				}()
			}
			wg.Wait()
			if taken.Load() != tt.winner || r.extends != 1 || p.engine.Generation() != 2 {
				t.Errorf("%d taken, %d extends, generation %d; want %d, 1, 2", taken.Load(), r.extends, p.engine.Generation(), tt.winner)
			}
			if active := p.engine.Active().Digest(); !bytes.Equal(active[:], r.latest()) {
				t.Error("the active policy is not the measured one")
			}
		})
	}
}

// TestNobodyIsLetThroughWhileAPolicyIsMeasured: a request that the old policy would allow waits for the new one.
func TestNobodyIsLetThroughWhileAPolicyIsMeasured(t *testing.T) {
	r := &register{block: make(chan struct{}), entered: make(chan struct{})}
	p := newBench(t).start(binding.Config{Register: r, Open: true}, openDefault, false)
	set := make(chan error, 1)
	release := r.block
	go func() { set <- p.chain.SetPolicy(t.Context(), []byte(locked)) }()
	<-r.entered
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if v, err := p.chain.Admit(ctx, ask("CreateContainerRequest", `{"id": "a"}`)); err == nil {
		t.Errorf("a request was decided (%t) while the policy was measured", v.Allowed)
	}
	decided := make(chan bool, 1)
	go func() {
		v, err := p.chain.Admit(t.Context(), ask("CreateContainerRequest", `{"id": "a"}`))
		decided <- err == nil && v.Allowed
	}()
	close(release)
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	if <-decided {
		t.Error("the old policy let a request through beside the new one")
	}
}

// TestARequestUnderWayIsNotLetThroughByThePolicyThatGoes: it was judged by the old policy, and the new one is measured by the
// time that it would pass.
func TestARequestUnderWayIsNotLetThroughByThePolicyThatGoes(t *testing.T) {
	r := &register{block: make(chan struct{}), entered: make(chan struct{})}
	p := newBench(t).start(binding.Config{Register: r, Open: true}, openDefault, false)
	release, judging := r.block, make(chan struct{})
	var once sync.Once
	decided := make(chan bool, 1)
	go func() {
		v, err := p.chain.Admit(t.Context(), engine.Request{EntryPoint: "CreateContainerRequest", Input: func(*engine.Policy) (ast.Value, error) {
			once.Do(func() { close(judging); <-r.entered })
			return ast.NewObject(), nil
		}})
		decided <- err == nil && v.Allowed
	}()
	<-judging
	set := make(chan error, 1)
	go func() { set <- p.chain.SetPolicy(t.Context(), []byte(locked)) }()
	<-r.entered
	select {
	case allowed := <-decided:
		t.Errorf("decided (%t) while the policy was measured", allowed)
		decided <- false
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	if <-decided {
		t.Error("the old policy let it through")
	}
}

func TestWhatWasAllowedStandsUntilThePolicyGoes(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Update: true}, closedDefault, false)
	p.set(good)
	admit := func(entry, input string) *engine.Verdict {
		t.Helper()
		v, err := p.chain.Admit(t.Context(), ask(entry, input))
		if err != nil || !v.Allowed || !p.chain.Stands(v) {
			t.Fatalf("%s: %+v, %v", entry, v, err)
		}
		return v
	}
	plain, held := admit("ExecProcessRequest", `{}`), admit("CreateContainerRequest", `{"id": "a"}`)
	r.block, r.entered = make(chan struct{}), make(chan struct{})
	set := make(chan error, 1)
	go func() { set <- p.chain.SetPolicy(t.Context(), []byte(good2)) }()
	for p.chain.Stands(plain) { // until the change begins
		time.Sleep(time.Millisecond)
	}
	if !p.chain.Stands(held) {
		t.Error("the policy goes while a request holds its state")
	}
	held.Discard()
	<-r.entered
	if p.chain.Stands(plain) {
		t.Error("a request of the old policy may be sent while the new one is measured")
	}
	close(r.block)
	if err := <-set; err != nil {
		t.Fatal(err)
	}
	if p.chain.Stands(plain) {
		t.Error("a request of the old policy may be sent under the new one")
	}
	plain = admit("ExecProcessRequest", `{}`)
	p.chain.Deny(binding.CodeInitdataChanged, errors.New("changed"))
	if p.chain.Stands(plain) {
		t.Error("a request may be sent though the guest is closed")
	}
}

// TestUpdateWaitsForTheRequestThatHoldsTheState, and requests judged meanwhile do not block it.
func TestUpdateWaitsForTheRequestThatHoldsTheState(t *testing.T) {
	r := &register{}
	p := newBench(t).start(binding.Config{Register: r, Update: true}, closedDefault, false)
	p.set(good)
	held, err := p.chain.Admit(t.Context(), ask("CreateContainerRequest", `{"id": "a"}`))
	if err != nil || !held.Holds() {
		t.Fatal(held, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := p.chain.SetPolicy(ctx, []byte(good2)); codeOf(err) != binding.CodeAlreadyRunning || r.extends != 1 {
		t.Fatalf("SetPolicy beside a held state: %v, %d extends", err, r.extends)
	}
	set := make(chan error, 1)
	go func() { set <- p.chain.SetPolicy(t.Context(), []byte(good2)) }()
	second := make(chan error, 1)
	go func() {
		v, err := p.chain.Admit(t.Context(), ask("CreateContainerRequest", `{"id": "b"}`))
		if err == nil {
			err = v.Commit()
		}
		second <- err
	}()
	if err := held.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, done := range []chan error{set, second} {
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
		case <-time.After(20 * time.Second):
			t.Fatal("deadlock between SetPolicy and a request that changes the state")
		}
	}
	if got := p.state(); !strings.Contains(got, `"a":true`) || !strings.Contains(got, `"b":true`) {
		t.Errorf("state %s", got)
	}
}

func TestSetPolicyBesideRequests(t *testing.T) {
	for range 20 {
		r := &register{}
		p := newBench(t).start(binding.Config{Register: r, Open: true}, openDefault, false)
		var wg sync.WaitGroup
		var ranByDefault atomic.Bool
		for range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				v, err := p.chain.Admit(t.Context(), ask("CreateContainerRequest", `{"id": "a"}`))
				if err == nil && v.Allowed && v.Generation == 1 {
					ranByDefault.Store(true)
				}
				if err == nil {
					v.Discard()
				}
			}()
		}
		err := p.chain.SetPolicy(t.Context(), []byte(good))
		wg.Wait()
		if ranByDefault.Load() == (err == nil) || (err == nil) != (r.extends == 1) {
			t.Fatalf("default let a request through: %t; SetPolicy: %v; %d extends", ranByDefault.Load(), err, r.extends)
		}
	}
}

func TestEveryRefusalHasItsStatusCode(t *testing.T) {
	for code, want := range map[binding.Code]codes.Code{
		binding.CodeForbidden: codes.PermissionDenied, binding.CodeDigestMismatch: codes.PermissionDenied,
		binding.CodeInitdataLocked: codes.PermissionDenied, binding.CodeAlreadySet: codes.FailedPrecondition,
		binding.CodeAlreadyRunning: codes.FailedPrecondition, binding.CodePolicyInvalid: codes.InvalidArgument,
		binding.CodePolicyTooLarge: codes.InvalidArgument, binding.CodePolicyWaives: codes.InvalidArgument,
		binding.CodeInitdataInvalid: codes.InvalidArgument, binding.CodeStateLost: codes.FailedPrecondition,
		binding.CodeNoBackend: codes.Unavailable, binding.CodeFieldZero: codes.Unavailable, binding.CodeFieldRead: codes.Unavailable,
		binding.CodeReportInvalid: codes.Unavailable, binding.CodeDebugGuest: codes.Unavailable, binding.CodePCRUnexpected: codes.Unavailable,
		binding.CodePCRExtend: codes.Unavailable, binding.CodeTPMUntrusted: codes.Unavailable, binding.CodeLogFailed: codes.Unavailable,
		binding.CodeInitdataChanged: codes.Unavailable, binding.CodeModeRefused: codes.Unavailable,
	} {
		err := &binding.Error{Code: code, Err: errors.New("line one\nline two " + strings.Repeat("x", 5000))}
		s, ok := status.FromError(err)
		if !ok || s.Code() != want || !strings.HasPrefix(s.Message(), "SetPolicyRequest is refused: "+string(code)+": ") {
			t.Errorf("%s: %v %.80q", code, s.Code(), s.Message())
		}
		if strings.Contains(s.Message(), "\n") || len(s.Message()) > 1024 {
			t.Errorf("%s: the message has %d bytes or several lines", code, len(s.Message()))
		}
	}
}
