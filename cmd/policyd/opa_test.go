// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/internal/hostdatatest"
)

// sidecarAgent does what an agent does that asks its policy over HTTP, in the same order, and reads from the answers only
// what it reads.
type sidecarAgent struct {
	t       testing.TB
	url     string
	client  *http.Client
	waiving bool // what AllowRequestsFailingPolicy said last
}

const emptyInput = `{"input":{}}`

// initialize sends the default policy until the sidecar takes the connection, then asks once whether failing requests pass.
func (a *sidecarAgent) initialize(policy string) {
	a.t.Helper()
	for i := 0; ; i++ {
		err := a.call("PUT", "/v1/policies/agent_policy", policy)
		if err == nil {
			break
		}
		if i == 50 {
			a.t.Fatalf("the sidecar does not answer: %v", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	a.waiving = a.query("AllowRequestsFailingPolicy", emptyInput)
}

// call sends a request and looks at nothing but whether there was an answer.
func (a *sidecarAgent) call(method, path, body string) error {
	req, err := http.NewRequest(method, a.url+path, strings.NewReader(body))
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err
}

// query posts to a rule. The answer must be {"result": BOOL}, or exactly {} and a newline when there is none.
func (a *sidecarAgent) query(name, input string) bool {
	a.t.Helper()
	resp, err := a.client.Post(a.url+"/v1/data/agent_policy/"+name, "application/json", strings.NewReader(input))
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	switch {
	case resp.StatusCode == http.StatusOK && string(body) == `{"result":true}`+"\n":
		return true
	case resp.StatusCode == http.StatusOK && (string(body) == `{"result":false}`+"\n" || string(body) == "{}\n"):
		return false
	}
	a.t.Fatalf("%s: the agent does not understand %d %s", name, resp.StatusCode, body)
	return false
}

// allows decides a request.
func (a *sidecarAgent) allows(name, request string) bool {
	a.t.Helper()
	return a.query(name, `{"input":`+request+`}`) || a.waiving
}

// setPolicy handles the host's SetPolicy. The agent takes it for done whatever the sidecar answers.
func (a *sidecarAgent) setPolicy(policy string) {
	a.t.Helper()
	if !a.allows("SetPolicyRequest", `{"policy":""}`) {
		a.t.Error("SetPolicyRequest is blocked by policy")
		return
	}
	for _, c := range []struct{ method, body string }{{"DELETE", ""}, {"PUT", policy}} {
		if err := a.call(c.method, "/v1/policies/agent_policy", c.body); err != nil {
			a.t.Fatal(err)
		}
	}
	a.waiving = a.query("AllowRequestsFailingPolicy", emptyInput)
}

// installOPA puts the binary where an agent finds its sidecar, and starts it as the agent does.
func installOPA(t *testing.T, files ...string) *sidecarAgent {
	t.Helper()
	if _, err := os.Stat(defaultConfigFile); !errors.Is(err, fs.ErrNotExist) {
		t.Skipf("SKIPPED: this machine has a %s of its own", defaultConfigFile)
	}
	opa := filepath.Join(t.TempDir(), "opa")
	if err := os.Symlink(buildPolicyd(t), opa); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	args := append([]string{"run", "--server", "--disable-telemetry", "--addr", address, "--log-level", "info"}, files...)
	cmd := exec.Command(opa, args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("opa: %v", err)
		}
		if t.Failed() {
			t.Log(stderr.String())
		}
	})
	return &sidecarAgent{t: t, url: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}}
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const (
	sidecarDefault = `package agent_policy

default SetPolicyRequest := true
default AllowRequestsFailingPolicy := true
`
	sidecarPolicy = `package agent_policy

default SetPolicyRequest := false
default CreateSandboxRequest := true

CreateContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": "/pstate/c1", "value": input.container_id}]} {
	input.OCI.Process.Args == ["/bin/app"]
	not data.pstate.c1
}

StartContainerRequest { data.pstate.c1 == input.container_id }
`
)

func TestAnAgentOfTheSidecarEraWorksUnmodified(t *testing.T) {
	file := filepath.Join(t.TempDir(), "default-policy.rego")
	if err := os.WriteFile(file, []byte(sidecarDefault), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, files := range map[string][]string{"started without a policy file": nil, "started with the default policy": {file}} {
		t.Run(name, func(t *testing.T) {
			a := installOPA(t, files...)
			a.initialize(sidecarDefault)
			if !a.waiving {
				t.Error("the default policy waives, and the agent was not informed")
			}
			a.setPolicy(sidecarPolicy)
			if a.waiving {
				t.Error("the policy does not waive, and the agent still does")
			}
			const create = `{"container_id":"a","OCI":{"Process":{"Args":["/bin/app"]}}}`
			for _, step := range []struct {
				name, request string
				want          bool
			}{
				{"CreateSandboxRequest", `{}`, true},
				{"CreateContainerRequest", `{"container_id":"a","OCI":{"Process":{"Args":["/bin/sh"]}}}`, false},
				{"StartContainerRequest", `{"container_id":"a"}`, false},
				{"CreateContainerRequest", create, true},
				{"CreateContainerRequest", create, false},
				{"StartContainerRequest", `{"container_id":"a"}`, true},
				{"ExecProcessRequest", `{"container_id":"a"}`, false},
			} {
				if got := a.allows(step.name, step.request); got != step.want {
					t.Errorf("%s %s: %v", step.name, step.request, got)
				}
			}
		})
	}
}

func TestAPolicyThatIsRefusedLeavesTheSidecarsAgentWithNothing(t *testing.T) {
	a := installOPA(t)
	a.initialize(sidecarDefault)
	a.setPolicy("package agent_policy\nnot rego")
	if a.waiving {
		t.Error("the agent waives although no policy is there")
	}
	for _, name := range []string{"CreateSandboxRequest", "SetPolicyRequest", "ExecProcessRequest"} {
		if a.allows(name, "{}") {
			t.Errorf("%s is allowed", name)
		}
	}
}

// The same client in a guest whose configuration binds policies to a TPM: what it sets is measured, and its default policy,
// which waives denials, waives nothing.
func TestTheSidecarsAgentIsBoundToATPM(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	a := installBoundOPA(m)
	a.initialize(sidecarDefault)
	if a.waiving || a.allows("CreateSandboxRequest", "{}") {
		t.Error("something is allowed before a policy was bound")
	}
	a.setPolicy(sidecarPolicy)
	m.extendedBy(sum256(sidecarPolicy))
	if a.waiving || !a.allows("CreateSandboxRequest", "{}") || a.allows("ExecProcessRequest", `{"container_id":"a"}`) {
		t.Error("the policy that was bound does not decide")
	}
}

// A register that another policy has gone into already: the new one does not match it, and everything is denied.
func TestTheSidecarsAgentGetsNothingWhereTheTPMHoldsAnotherPolicy(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.tool("tpm2_pcrextend", fmt.Sprintf("8:sha256=%x", sum256(otherPolicy)))
	a := installBoundOPA(m)
	a.initialize(sidecarDefault)
	for _, c := range []struct{ method, body string }{{"DELETE", ""}, {"PUT", sidecarPolicy}} { // whatever is answered
		if err := a.call(c.method, "/v1/policies/agent_policy", c.body); err != nil {
			t.Fatal(err)
		}
	}
	a.waiving = a.query("AllowRequestsFailingPolicy", emptyInput)
	for _, name := range []string{"CreateSandboxRequest", "SetPolicyRequest", "StartContainerRequest"} {
		if a.allows(name, "{}") {
			t.Errorf("%s is allowed", name)
		}
	}
	m.extendedBy(sum256(otherPolicy))
}

// installBoundOPA is installOPA in a guest with a configuration, whose file systems are the process's own.
func installBoundOPA(m *machine) *sidecarAgent {
	m.t.Helper()
	m.write("etc/portcullis/config.toml", fmt.Sprintf(`[policy]
default = "/etc/portcullis/default-policy.rego"
[binding]
mode = "required"
backend = "vtpm"
initdata = "off"
[binding.vtpm]
device = %q
trust = "asserted"
`, m.tpm.Device()))
	m.write("etc/portcullis/default-policy.rego", sidecarDefault)
	if err := os.Symlink(buildPolicyd(m.t), m.path("opa")); err != nil {
		m.t.Fatal(err)
	}
	address := freeAddress(m.t)
	script := `mount --bind "$1/etc" /etc && mount -t tmpfs tmpfs /run && shift && exec "$@"`
	cmd := exec.Command("unshare", "--mount", "sh", "-c", script, "sh", m.dir,
		m.path("opa"), "run", "--server", "--disable-telemetry", "--addr", address, "--log-level", "info")
	cmd.Stderr = &m.log
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			m.t.Errorf("opa: %v\n%s", err, m.log.String())
		}
	})
	return &sidecarAgent{t: m.t, url: "http://" + address, client: &http.Client{Timeout: 10 * time.Second}}
}

func TestTheSidecarsConfiguration(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	missing := filepath.Join(dir, "missing")
	broken := write("broken.toml", "[gate]\nlisten = oops")
	guests := write("config.toml", "[binding]\nmode = \"required\"\n[policy]\ndefault = \"/own.rego\"")
	rego := write("default.rego", sidecarDefault)
	for _, tt := range []struct {
		name  string
		args  []string
		files guestFiles
		check func(config) bool // nil: an error is wanted
	}{
		{"a guest without a file has the defaults and keeps nothing", nil, guestFiles{config: missing, defaults: []string{missing}},
			func(c config) bool {
				return c.stateless && c.Binding.Mode == "auto" && c.Policy.Default == "" && c.Gate.REST == "localhost:8181"
			}},
		{"its default policy is the first that is there", nil, guestFiles{config: missing, defaults: []string{missing, rego, broken}},
			func(c config) bool { return c.Policy.Default == rego }},
		{"the guest's own file counts", nil, guestFiles{config: guests, defaults: []string{rego}},
			func(c config) bool {
				return !c.stateless && c.Binding.Mode == "required" && c.Policy.Default == "/own.rego" && c.Gate.Listen == nil
			}},
		{"a policy on the command line wins", []string{"x.rego"}, guestFiles{config: guests},
			func(c config) bool { return c.Policy.Default == "x.rego" }},
		{"a port without a host is on loopback", []string{"-a", ":9"}, guestFiles{config: missing},
			func(c config) bool { return c.Gate.REST == "localhost:9" }},
		{"flags may follow the file", []string{"x.rego", "--log-level", "ERROR", "--addr=[::1]:1"}, guestFiles{config: missing},
			func(c config) bool { return c.Log.Level == "error" && c.Gate.REST == "[::1]:1" }},
		{"a file that is broken is an error", nil, guestFiles{config: broken}, nil},
		{"a file that cannot be read is an error", nil, guestFiles{config: dir}, nil},
		{"another address than loopback is an error", []string{"--addr", "10.0.0.1:8181"}, guestFiles{config: missing}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := parseOPAFlags(append([]string{"--server"}, tt.args...))
			if err != nil {
				t.Fatal(err)
			}
			c, err := o.configuration(tt.files)
			switch {
			case tt.check == nil:
				if err == nil {
					t.Errorf("got %+v", c)
				}
			case err != nil:
				t.Error(err)
			case !tt.check(c):
				t.Errorf("got %+v", c)
			}
		})
	}
}
