// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/binding"
	"portcullis/internal/hostdatatest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// recordedPolicy is of a pod with three containers, and allows more than they need.
const recordedPolicy = `package agent_policy

import rego.v1

default CreateSandboxRequest := true
default CreateContainerRequest := true
default RemoveContainerRequest := true
default ExecProcessRequest := true
default SignalProcessRequest := true
default WaitProcessRequest := true
default StatsContainerRequest := true
default CheckRequest := true

StartContainerRequest := {"allowed": true, "ops": [{"op": "add", "path": concat("", ["/pstate/", input.container_id]), "value": true}]}

pod_complete if count(data.pstate) >= 3

policy_data := {"containers": {
	"$sandbox": {"after": [], "exec": [], "image": {"also": [], "digest": "", "layers": []}, "OCI": {"Annotations": {}}},
	"init": {"after": [], "exec": [], "image": {"also": [], "digest": "sha256:1111111111111111111111111111111111111111111111111111111111111111", "layers": []},
		"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "registry.example/init@sha256:1111111111111111111111111111111111111111111111111111111111111111"}}},
	"web": {"after": [{"container": "init", "state": "succeeded"}], "exec": [["cat", "/healthy"]], "image": {"also": [], "digest": "", "layers": []},
		"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "registry.example/web:1"}}}
}}
`

// recorded is a machine with the record on, and the policy of its pod set.
func recorded(t testing.TB) *machine {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.conf.Measure.Pod = "pcr"
	m.write("policy.rego", recordedPolicy)
	return m
}

// recording is that machine with its policy set and its agent there.
func recording(t testing.TB) *machine {
	m := recorded(t)
	m.boot()
	m.setPolicy(recordedPolicy, "")
	m.agentUp()
	return m
}

func containerID(n int) string { return strings.Repeat(fmt.Sprintf("%02x", n), 32) }

// recordedPod is what a host does to a pod.
type recordedPod struct{ *machine }

func (p recordedPod) must(err error) {
	p.t.Helper()
	if err != nil {
		p.t.Error(err)
	}
}

func (p recordedPod) sandbox() {
	p.t.Helper()
	p.must(p.request("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: containerID(1), Hostname: "pod"}))
	p.create(1, "")
	p.start(1)
}

func (p recordedPod) createRequest(n int, name string) *agentpb.CreateContainerRequest {
	r := podSpec(containerID(n))
	if name == "init" {
		r.OCI.Process.Args = []string{"/bin/true"}
	}
	images := map[string]string{"web": "registry.example/web:1", "init": "registry.example/init@sha256:" + strings.Repeat("1", 64)}
	r.OCI.Annotations = map[string]string{"io.kubernetes.cri.container-type": "container", "io.kubernetes.cri.container-name": name, "io.kubernetes.cri.image-name": images[name]}
	if name == "" {
		r.OCI.Annotations = map[string]string{"io.kubernetes.cri.container-type": "sandbox"}
	}
	return r
}

func (p recordedPod) create(n int, name string) {
	p.t.Helper()
	p.must(p.request("CreateContainer", p.createRequest(n, name)))
}

func (p recordedPod) start(n int) {
	p.t.Helper()
	p.must(p.request("StartContainer", &agentpb.StartContainerRequest{ContainerId: containerID(n)}))
}

func (p recordedPod) exec(n int, args ...string) {
	p.t.Helper()
	p.must(p.request("ExecProcess", &agentpb.ExecProcessRequest{ContainerId: containerID(n), ExecId: fmt.Sprint("e", time.Now().UnixNano()), Process: podProcess(args...)}))
}

// end kills a container and waits for it, as a host does, or has it end by itself.
func (p recordedPod) end(n int) {
	p.t.Helper()
	p.must(p.request("SignalProcess", &agentpb.SignalProcessRequest{ContainerId: containerID(n), Signal: 9}))
	p.must(p.request("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: containerID(n)}))
}

func (m *machine) kinds() string {
	m.t.Helper()
	records, err := eventlog.Decode([]byte(m.read("run/measure.jsonseq")))
	if err != nil {
		m.t.Fatal(err)
	}
	_, of := eventlog.Split(records)
	head, err := eventlog.Head(of)
	if err != nil {
		m.t.Fatal(err)
	}
	if m.tpm != nil {
		if out := strings.ToLower(m.tool("tpm2_pcrread", "sha256:14")); !strings.Contains(out, head.String()) {
			m.t.Errorf("the log leads to %s, tpm2_pcrread shows %s", head, out)
		}
	}
	facts, err := record.Read(of)
	if err != nil {
		m.t.Fatal(err)
	}
	var kinds []string
	for _, f := range facts {
		kinds = append(kinds, string(f.Kind))
	}
	return strings.Join(kinds, " ")
}

// tcg2 is the record as the attestation agent would write it.
func (m *machine) tcg2() string {
	m.t.Helper()
	records, err := eventlog.Decode([]byte(m.read("run/measure.jsonseq")))
	if err != nil {
		m.t.Fatal(err)
	}
	var out []byte
	_, of := eventlog.Split(records)
	for _, r := range of {
		out = append(out, eventlog.TCG2(r)...)
	}
	return string(out)
}

// TestAPolicyChangeIsAFact, in its place among the others.
func TestAPolicyChangeIsAFact(t *testing.T) {
	m := recorded(t)
	m.conf.Binding.PolicyUpdate = "extend"
	changing := recordedPolicy + "\n"
	first := strings.Replace(recordedPolicy, "import rego.v1\n", "import rego.v1\n\ndefault SetPolicyRequest := true\n", 1)
	m.write("first.rego", first)
	m.write("second.rego", changing)
	m.boot()
	m.agentUp()
	m.setPolicy(first, "")
	p := recordedPod{m}
	p.sandbox()
	m.setPolicy(changing, "")
	if got, want := m.kinds(), "policy sandbox created started policy"; got != want {
		t.Errorf("recorded %s\nwant     %s", got, want)
	}
	m.extendedBy(sum256(first), sum256(changing))
	m.quoted("sha256:8,14")
	m.verifies(0, "--pod=second.rego", "--earlier=first.rego")
	if v := m.verifies(1, "--pod=second.rego"); !strings.Contains(v.detail("pod-policy"), "ruled before") {
		t.Errorf("%+v", v)
	}
}

// asked is what the record's socket answers.
func (m *machine) asked(nonce string) record.Answer {
	m.t.Helper()
	conn, err := net.Dial("unix", m.path("run/record.sock"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write([]byte(nonce + "\n")); err != nil {
		m.t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil {
		m.t.Fatal(err)
	}
	m.write("record.json", string(text))
	var a record.Answer
	if err := json.Unmarshal(text, &a); err != nil {
		m.t.Fatal(err)
	}
	return a
}

// fullLife is a pod whose init container succeeds, and that is then complete.
func (p recordedPod) fullLife() {
	p.t.Helper()
	p.sandbox()
	p.create(2, "init")
	p.start(2)
	p.must(p.request("WaitProcess", &agentpb.WaitProcessRequest{ContainerId: containerID(2)}))
	p.create(3, "web")
	p.start(3)
	p.exec(3, "cat", "/healthy")
}

const fullKinds = "policy sandbox created started created started ended created started complete exec"

func TestThePodsLifeIsRecorded(t *testing.T) {
	m := recorded(t)
	m.conf.Measure.TCG2 = m.path("run/pod.tcg2")
	r := m.boot()
	m.agentUp()
	m.setPolicy(recordedPolicy, "")
	p := recordedPod{m}
	p.fullLife()
	for range 3 {
		p.exec(3, "cat", "/healthy")
		p.must(m.request("StatsContainer", &agentpb.StatsContainerRequest{ContainerId: containerID(3)}))
	}
	if got := m.kinds(); got != fullKinds {
		t.Errorf("recorded %s\nwant     %s", got, fullKinds)
	}
	m.extendedBy(sum256(recordedPolicy)) // PCR 8 holds the policy alone
	if a := m.asked(""); !a.Complete || a.PCR != 14 || a.Events != 11 || a.Policy != fmt.Sprintf("%x", sum256(recordedPolicy)) {
		t.Errorf("%+v", a)
	}
	if out := m.ctl(0, "status", "--json", "--socket", m.path("run/status.sock")); !strings.Contains(out, `"complete"`) {
		t.Errorf("status does not show the record: %s", out)
	}
	r.stop()
	m.boot() // beside the running agent
	if a := m.asked(""); !a.Complete || a.Events != 11 {
		t.Errorf("after a restart: %+v", a)
	}
	if m.read("run/pod.tcg2") != m.tcg2() {
		t.Error("the copy for readers of the attestation agent's log is another after a restart")
	}
	p.end(3)
	if m.read("run/pod.tcg2") != m.tcg2() {
		t.Error("the copy for readers of the attestation agent's log is not the record")
	}
	if got, want := m.kinds(), fullKinds+" signalled broken ended"; got != want {
		t.Errorf("recorded %s\nwant     %s", got, want)
	}
	if a := m.asked(""); a.Complete || a.Broken != "web" {
		t.Errorf("%+v", a)
	}
}

// TestWhatTheAgentRefusesIsNotRunning: the record takes it back.
func TestWhatTheAgentRefusesIsNotRunning(t *testing.T) {
	m := recording(t)
	p := recordedPod{m}
	p.sandbox()
	refused := p.createRequest(2, "web")
	refused.OCI.Process = nil
	if err := m.request("CreateContainer", refused); err == nil {
		t.Fatal("the agent made a container without a program")
	}
	if got, want := m.kinds(), "policy sandbox created started created failed"; got != want {
		t.Errorf("recorded %s\nwant     %s", got, want)
	}
}

// TestKilledWhileRecording kills policyd after each step of a fact's measurement: whoever starts again goes on from the record, and
// the same policy and pod make each fact one extend.
func TestKilledWhileRecording(t *testing.T) {
	for fact, kind := range map[int]string{1: "policy", 2: "sandbox", 3: "created", 4: "started"} {
		for _, step := range []measure.Step{measure.StepLogged, measure.StepExtended, measure.StepCommitted} { // all of them: measure/record
			t.Run(fmt.Sprintf("%s, %s", kind, step), func(t *testing.T) {
				t.Parallel()
				m := recorded(t)
				m.podFact = fact
				cmd := m.child(step)
				p := recordedPod{m}
				_ = m.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: recordedPolicy})
				if fact > 1 {
					m.agentUp()
					_ = m.request("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: containerID(1), Hostname: "pod"})
				}
				if fact > 2 {
					_ = m.request("CreateContainer", p.createRequest(1, ""))
				}
				if fact > 3 {
					_ = m.request("StartContainer", &agentpb.StartContainerRequest{ContainerId: containerID(1)})
				}
				var exit *exec.ExitError
				if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
					t.Fatalf("policyd ended with %v, want SIGKILL", err)
				}
				m.boot()
				want := []string{"policy", "sandbox", "created", "started"}[:fact]
				if step < measure.StepExtended {
					want = want[:fact-1]
				}
				if fact == 1 {
					m.extendedBy(sum256(recordedPolicy)) // it was measured before, and does not decide yet
					m.sandbox(binding.CodeNotSet)
					m.agentUp()
				}
				m.setPolicy(recordedPolicy, "")
				if fact == 1 {
					want = []string{"policy"}
				}
				if got := m.kinds(); got != strings.Join(want, " ") {
					t.Errorf("recorded %s, want %s", got, strings.Join(want, " "))
				}
				m.extendedBy(sum256(recordedPolicy))
				if fact == 4 { // the host asks again
					_ = m.request("StartContainer", &agentpb.StartContainerRequest{ContainerId: containerID(1)})
					if got := m.kinds(); got != "policy sandbox created started" {
						t.Errorf("once more makes %s", got)
					}
				}
			})
		}
	}
}

// TestARecordIsWantedAndCannotBe says when a guest stays closed.
func TestARecordIsWantedAndCannotBe(t *testing.T) {
	t.Run("required, and no register", func(t *testing.T) {
		m := newMachine(t, hostdatatest.Guest{})
		m.conf.Measure.Pod, m.conf.Binding.Mode = "pcr", "required"
		m.conf.Binding.VTPM.Device = m.path("none")
		r := m.boot()
		m.sandbox(binding.CodeNoBackend)
		if r.d.book != nil {
			t.Error("there is a record")
		}
	})
	t.Run("an ordinary machine", func(t *testing.T) {
		m := newMachine(t, hostdatatest.Guest{})
		m.conf.Measure.Pod = "pcr"
		m.conf.Binding.VTPM.Device = m.path("none")
		r := m.boot()
		m.agentUp()
		m.sandbox("")
		if r.d.book != nil || !strings.Contains(m.log.String(), "the pod's life is not recorded") {
			t.Errorf("there is a record, or nothing is said: %s", m.log.String())
		}
	})
	t.Run("the register is another's", func(t *testing.T) {
		m := recorded(t)
		m.tool("tpm2_pcrextend", "14:sha256="+strings.Repeat("ab", 32))
		m.boot()
		m.setPolicy(recordedPolicy, binding.CodePCRUnexpected)
		m.sandbox(binding.CodePCRUnexpected)
		m.extendedBy()
	})
	t.Run("off unless it is asked for", func(t *testing.T) {
		m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
		r := m.boot()
		if r.d.book != nil {
			t.Error("there is a record")
		}
		if _, err := os.Stat(m.path("run/record.sock")); err == nil {
			t.Error("there is a socket")
		}
	})
}

func TestConfigurationOfTheRecord(t *testing.T) {
	for text, want := range map[string]string{
		"[measure]\npod = \"pcr\"":                                                 "",
		"[measure]\npod = \"pcr\"\npod_pcr = 8":                                    "want 9 to 15",
		"[measure]\npod = \"pcr\"\npod_pcr = 9\n[binding.vtpm]\npcr = 9":           "use another",
		"[measure]\npod = \"pcr\"\npod_pcr = 16":                                   "want 9 to 15",
		"[measure]\npod = \"yes\"":                                                 "want one of",
		"[measure]\ntcg2 = \"log\"":                                                "absolute path",
		"[measure]\npod = \"pcr\"\n[gate]\nlisten = []\nrest = \"127.0.0.1:8181\"": "only the gate",
	} {
		_, err := parseConfig([]byte(text))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

// TestARecordWithoutARegister: the guest's key vouches for it, and a report has to vouch for the key.
func TestARecordWithoutARegister(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(recordedPolicy))}})
	m.conf.Measure.Pod = "pcr"
	first := m.boot()
	m.setPolicy(recordedPolicy, "")
	m.agentUp()
	p := recordedPod{m}
	p.fullLife()
	if got := m.kinds(); got != fullKinds {
		t.Errorf("recorded %s\nwant     %s", got, fullKinds)
	}
	a := m.asked("00ff")
	if err := a.Verify([]byte{0, 0xff}); err != nil || !a.Complete {
		t.Errorf("%v: %+v", err, a)
	}
	if err := a.Verify([]byte{0, 0xfe}); !errors.Is(err, record.ErrAnswer) {
		t.Errorf("another nonce: %v", err)
	}
	a.Complete = false
	if err := a.Verify([]byte{0, 0xff}); !errors.Is(err, record.ErrAnswer) {
		t.Errorf("another statement: %v", err)
	}
	first.stop()
	m.boot()
	if again := m.asked("00ff"); !slices.Equal(again.Key, a.Key) || len(again.Key) != ed25519.PublicKeySize {
		t.Error("a restart makes another key")
	}
}
