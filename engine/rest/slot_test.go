// SPDX-License-Identifier: Apache-2.0

package rest_test

import (
	"crypto/sha256"
	"strings"
	"testing"

	"portcullis/engine/binding"
	"portcullis/engine/journal"
)

const (
	openDefault = `package agent_policy
default SetPolicyRequest := true
default CreateSandboxRequest := true
AllowRequestsFailingPolicy := true`

	workload = `package agent_policy
default SetPolicyRequest := true
default CreateContainerRequest := false
CreateContainerRequest := {"allowed": true, "ops": ops} {
	not data.pstate.started
	ops := [{"op": "add", "path": "/pstate/started", "value": input.id}]
}
RefusedRequest = {"allowed": false}
BrokenRequest = {"allowed": true, "ops": [{"op": "remove", "path": "/pstate/nothing"}]}
ExecProcessRequest { data.pstate.started == input.id }`

	locked = `package agent_policy
default SetPolicyRequest := false
default CreateSandboxRequest := true`

	policyURL = "/v1/policies/agent_policy"
)

// bound makes a guest that is bound to text and denies until then.
func bound(text string) func(*binding.Config) {
	return func(c *binding.Config) {
		digest := sha256.Sum256([]byte(text))
		c.Open, c.Field = false, fakeField(digest[:])
	}
}

func wantStatus(t *testing.T, what string, got reply, want int) {
	t.Helper()
	if got.status != want {
		t.Errorf("%s: status %d, want %d: %s", what, got.status, want, got.body)
	}
}

func wantAnswer(t *testing.T, what, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %swant %s", what, got, want)
	}
}

func TestTheDefaultPolicyIsTakenUnboundAndLeavesABoundGuestClosed(t *testing.T) {
	r := startRig(t, openDefault, bound(workload))
	wantStatus(t, "put default", r.send(t, "PUT", policyURL, openDefault), 200)
	wantAnswer(t, "waiver", r.ask(t, "AllowRequestsFailingPolicy", "{}"), none)
	wantAnswer(t, "sandbox", r.ask(t, "CreateSandboxRequest", "{}"), none)
	wantAnswer(t, "set policy", r.ask(t, "SetPolicyRequest", `{"policy": ""}`), yes)
	wantAnswer(t, "package", r.send(t, "GET", "/v1/data/agent_policy", "").body, none)
}

func TestTheDefaultPolicyDecidesInAnOpenGuest(t *testing.T) {
	r := startRig(t, openDefault, nil)
	wantStatus(t, "put default", r.send(t, "PUT", policyURL, openDefault), 200)
	wantAnswer(t, "waiver", r.ask(t, "AllowRequestsFailingPolicy", "{}"), yes)
	wantAnswer(t, "sandbox", r.ask(t, "CreateSandboxRequest", "{}"), yes)
}

func TestAPolicyThatTheHardwareHoldsComesIntoForce(t *testing.T) {
	r := startRig(t, openDefault, bound(workload))
	wantStatus(t, "put default", r.send(t, "PUT", policyURL, openDefault), 200)
	wantStatus(t, "delete", r.send(t, "DELETE", policyURL, ""), 200)
	wantAnswer(t, "between", r.ask(t, "SetPolicyRequest", "{}"), none)
	wantStatus(t, "put", r.send(t, "PUT", policyURL, workload), 200)
	wantAnswer(t, "waiver", r.ask(t, "AllowRequestsFailingPolicy", "{}"), none)

	wantAnswer(t, "exec before", r.ask(t, "ExecProcessRequest", `{"id": "a"}`), none)
	wantAnswer(t, "create", r.ask(t, "CreateContainerRequest", `{"id": "a"}`), yes)
	wantAnswer(t, "create again", r.ask(t, "CreateContainerRequest", `{"id": "a"}`), no)
	wantAnswer(t, "exec", r.ask(t, "ExecProcessRequest", `{"id": "a"}`), yes)

	// The host sends the same policy again: its state goes on.
	wantStatus(t, "delete again", r.send(t, "DELETE", policyURL, ""), 200)
	wantAnswer(t, "exec between", r.ask(t, "ExecProcessRequest", `{"id": "a"}`), none)
	wantStatus(t, "put again", r.send(t, "PUT", policyURL, workload), 200)
	wantAnswer(t, "exec after", r.ask(t, "ExecProcessRequest", `{"id": "a"}`), yes)
}

func TestARefusedPutLeavesNothingAllowed(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		tune       func(*binding.Config)
		status     int
	}{
		{"another digest", locked, bound(workload), 403},
		{"no Rego", "package agent_policy\nx := }", nil, 400},
		{"another package", "package other", nil, 400},
		{"empty", "", nil, 400},
		{"not UTF-8", "package agent_policy\n# \xff", nil, 400},
	} {
		for _, deleted := range []bool{true, false} {
			name := tt.name
			if deleted {
				name += ", after DELETE"
			}
			t.Run(name, func(t *testing.T) {
				r := startRig(t, openDefault, tt.tune)
				wantStatus(t, "put default", r.send(t, "PUT", policyURL, openDefault), 200)
				if deleted {
					wantStatus(t, "delete", r.send(t, "DELETE", policyURL, ""), 200)
				}
				wantStatus(t, "put", r.send(t, "PUT", policyURL, tt.text), tt.status)
				for _, name := range []string{"AllowRequestsFailingPolicy", "SetPolicyRequest", "CreateSandboxRequest"} {
					wantAnswer(t, name, r.ask(t, name, "{}"), none)
				}
				wantStatus(t, "put the default back", r.send(t, "PUT", policyURL, openDefault), 403)
				wantStatus(t, "put the right one", r.send(t, "PUT", policyURL, workload), 403)
				wantStatus(t, "delete", r.send(t, "DELETE", policyURL, ""), 404)
				if r.chain.Denial() == nil {
					t.Error("a gate beside this server would still let requests through")
				}
			})
		}
	}
}

func TestAPolicyThatForbidsItIsNeitherDeletedNorReplaced(t *testing.T) {
	r := startRig(t, openDefault, nil)
	wantStatus(t, "put", r.send(t, "PUT", policyURL, locked), 200)
	wantStatus(t, "delete", r.send(t, "DELETE", policyURL, ""), 403)
	wantStatus(t, "put another", r.send(t, "PUT", policyURL, openDefault), 403)
	wantStatus(t, "put broken", r.send(t, "PUT", policyURL, "x"), 403)
	wantAnswer(t, "still", r.ask(t, "CreateSandboxRequest", "{}"), yes)
	if got := r.send(t, "GET", policyURL, ""); !strings.Contains(got.body, "default SetPolicyRequest := false") {
		t.Errorf("got %s", got.body)
	}
	wantStatus(t, "put the same", r.send(t, "PUT", policyURL, locked), 200)
}

func TestOnePolicyIsHeld(t *testing.T) {
	r := startRig(t, openDefault, nil)
	wantStatus(t, "get before", r.send(t, "GET", "/v1/policies/default.rego", ""), 200)
	wantStatus(t, "put", r.send(t, "PUT", policyURL, openDefault), 200)
	wantStatus(t, "put a second", r.send(t, "PUT", "/v1/policies/other", locked), 400)
	wantAnswer(t, "still", r.ask(t, "CreateSandboxRequest", "{}"), yes)
	wantStatus(t, "delete another", r.send(t, "DELETE", "/v1/policies/other", ""), 404)
	wantStatus(t, "delete", r.send(t, "DELETE", policyURL, ""), 200)
	wantStatus(t, "get after", r.send(t, "GET", policyURL, ""), 404)
	wantAnswer(t, "list", r.send(t, "GET", "/v1/policies", "").body, `{"result":[]}`+"\n")
}

func TestADecisionWithOpsIsAnsweredAsABool(t *testing.T) {
	r := startRig(t, workload, nil)
	wantAnswer(t, "refused", r.ask(t, "RefusedRequest", "{}"), no)
	wantAnswer(t, "ops that do not apply", r.ask(t, "BrokenRequest", "{}"), no)
	wantAnswer(t, "allowed", r.ask(t, "CreateContainerRequest", `{"id": 1}`), yes)
	wantAnswer(t, "v0", r.send(t, "POST", "/v0/data/agent_policy/ExecProcessRequest", `{"id": 1}`).body, "true\n")
}

// withJournal makes a chain go on from the journal in dir, as that of a process that starts anew.
func withJournal(t *testing.T, dir string) func(*binding.Config) {
	return func(c *binding.Config) {
		j, err := journal.Open(dir, "boot")
		if err != nil {
			t.Fatal(err)
		}
		c.Journal = j
	}
}

// A process that starts after one that had deleted or refused a policy must not go on with the policy before.
func TestNothingIsAllowedAfterARestartInBetween(t *testing.T) {
	for name, text := range map[string]string{"deleted": "", "refused": "no policy"} {
		t.Run(name, func(t *testing.T) {
			persistent := withJournal(t, t.TempDir())
			r := startRig(t, openDefault, persistent)
			wantStatus(t, "delete", r.send(t, "DELETE", "/v1/policies/default.rego", ""), 200)
			if text != "" {
				wantStatus(t, "put", r.send(t, "PUT", policyURL, text), 400)
			}
			again := startRig(t, openDefault, persistent)
			wantAnswer(t, "after", again.ask(t, "CreateSandboxRequest", "{}"), none)
		})
	}
}

func TestAPolicyPutSurvivesARestartWithItsState(t *testing.T) {
	persistent := withJournal(t, t.TempDir())
	r := startRig(t, openDefault, persistent)
	wantStatus(t, "delete", r.send(t, "DELETE", "/v1/policies/default.rego", ""), 200)
	wantStatus(t, "put", r.send(t, "PUT", policyURL, workload), 200)
	wantAnswer(t, "create", r.ask(t, "CreateContainerRequest", `{"id": 1}`), yes)
	again := startRig(t, openDefault, persistent)
	wantAnswer(t, "create again", again.ask(t, "CreateContainerRequest", `{"id": 1}`), no)
	wantAnswer(t, "exec", again.ask(t, "ExecProcessRequest", `{"id": 1}`), yes)
}

func TestAskingForTheWaiverIsNoRequest(t *testing.T) {
	r := startRig(t, openDefault, nil)
	wantAnswer(t, "waiver", r.ask(t, "AllowRequestsFailingPolicy", "{}"), yes)
	wantStatus(t, "delete", r.send(t, "DELETE", "/v1/policies/default.rego", ""), 200)
	wantStatus(t, "put", r.send(t, "PUT", policyURL, locked), 200)
}

func TestTheWaiverStaysWhatItWasAtActivation(t *testing.T) {
	r := startRig(t, "package agent_policy\ndefault AllowRequestsFailingPolicy := false\nAllowRequestsFailingPolicy { input.now }", nil)
	wantAnswer(t, "at first", r.ask(t, "AllowRequestsFailingPolicy", "{}"), no)
	wantAnswer(t, "later", r.ask(t, "AllowRequestsFailingPolicy", `{"now": true}`), no)
}

func TestWhatAPolicyDoesNotReadDoesNotKeepDecisionsApartAndWhatItReadsDoes(t *testing.T) {
	r := startRig(t, "package agent_policy\nReadsRequest { input.a == 1 }\nReadsAllRequest { count(input) == 1 }\nIgnoresRequest { input.b == 1 }", nil)
	for range 2 { // the second time by memory
		for _, tt := range []struct{ name, input, want string }{
			{"ReadsRequest", `{"a":1,"b":1}`, yes},
			{"ReadsRequest", `{"a":2,"b":1}`, none},
			{"ReadsRequest", `{"a":1}`, yes},
			{"ReadsRequest", `{"b":1}`, none},
			{"ReadsRequest", `[1]`, none},
			{"ReadsAllRequest", `{"a":1}`, yes},
			{"ReadsAllRequest", `{"a":1,"c":1}`, none},
			{"ReadsAllRequest", `{"b":1}`, yes},
			{"IgnoresRequest", `{"a":1,"b":1}`, yes},
			{"IgnoresRequest", `{"a":1}`, none},
		} {
			wantAnswer(t, tt.name+tt.input, r.ask(t, tt.name, tt.input), tt.want)
		}
	}
}
