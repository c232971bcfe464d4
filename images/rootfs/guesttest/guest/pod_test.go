// SPDX-License-Identifier: Apache-2.0

package guest

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"

	"portcullis/agentproto/agentpb"
)

// Bounds of what policyd may take.
const (
	maxFirstDecision = 1500 * time.Millisecond
	maxMemory        = 35_000_000
	// maxMemoryRecording is for a guest that records its pod's life: what each event took lies about until the next collection.
	maxMemoryRecording = 42_000_000
)

const zeroPCR = "0000000000000000000000000000000000000000000000000000000000000000"

// extended is a SHA-256 PCR at zero after one extend with d.
func extended(d [32]byte) string {
	v := sha256.Sum256(append(make([]byte, 32), d[:]...))
	return hex.EncodeToString(v[:])
}

// TestPod is a pod's life under systemd: its steps depend on each other.
func TestPod(t *testing.T) {
	skipOutside(t)
	policy := read(t, policyPath)
	cases := readCases(t)
	digest := sha256.Sum256(policy)
	t.Run("first decision", firstDecision)
	t.Run("the policy is bound to PCR 8", func(t *testing.T) { bindPolicy(t, policy) })
	t.Run("a session is decided", func(t *testing.T) { session(t, cases) })
	if cmdline["guesttest.fragment"] != "" {
		t.Run("a container is updated", update)
	}
	t.Run("nothing but the gate listens on vsock", onlyTheGateListens) // the host asks for the agent's log there
	t.Run("memory", checkMemory)
	t.Run("quote", func(t *testing.T) { sendEvidence(t, digest) })
	t.Run("killed and back", func(t *testing.T) { killed(t, cases, pcr8(t)) })
	t.Run("no debug dump", noDump)
	t.Run("the unit is confined", confined)
}

func firstDecision(t *testing.T) {
	h := dial(t)
	h.denied("ListRoutesRequest", &agentpb.ListRoutesRequest{}, codes.PermissionDenied, "policy-not-set")
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		t.Fatal(err)
	}
	started := moment(t, "InactiveExit")
	took := time.Duration(now.Nano()) - started
	t.Logf("FIGURE first decision %v after the unit's start, ready after %v", took.Round(time.Millisecond),
		(moment(t, "ActiveEnter") - started).Round(time.Millisecond))
	if took > maxFirstDecision && cmdline["guesttest.accel"] == "kvm" {
		t.Errorf("first decision after %v, want %v", took, maxFirstDecision)
	}
}

// moment is when something happened to policyd's unit, on the monotonic clock.
func moment(t *testing.T, what string) time.Duration {
	t.Helper()
	out, err := exec.Command("systemctl", "show", "--value", "-p", what+"TimestampMonotonic", "policyd.service").Output()
	if err != nil {
		t.Fatal(err)
	}
	µs, err := strconv.ParseInt(strings.TrimSpace(string(out)), 10, 64)
	if err != nil || µs == 0 {
		t.Fatalf("%s of the unit: %q, %v", what, out, err)
	}
	return time.Duration(µs) * time.Microsecond
}

func bindPolicy(t *testing.T, policy []byte) {
	h := dial(t)
	if got := pcr8(t); got != zeroPCR {
		t.Fatalf("PCR 8 is %s before any policy", got)
	}
	if err := h.setPolicy([]byte("package agent_policy\n\nthis does not compile")); err == nil {
		t.Error("a policy that does not compile was taken")
	}
	if got := pcr8(t); got != zeroPCR {
		t.Fatalf("PCR 8 is %s after a policy that does not compile", got)
	}
	if err := h.setPolicy(policy); err != nil {
		t.Fatal(err)
	}
	want := extended(sha256.Sum256(policy))
	for _, again := range []bool{false, true} {
		if again {
			if err := h.setPolicy(policy); err != nil {
				t.Errorf("the same policy again: %v", err)
			}
		}
		if got := pcr8(t); got != want {
			t.Errorf("PCR 8 is %s, want %s", got, want)
		}
	}
	h.denied("SetPolicyRequest", &agentpb.SetPolicyRequest{Policy: string(policy) + "\n"}, codes.PermissionDenied, "")
	if s := readStatus(t); s.Backend != "vtpm" || s.Binding != "policy" || s.Mode != "required" {
		t.Errorf("status %+v", s)
	}
}

func session(t *testing.T, cases []testCase) {
	h := dial(t)
	allowed, denied := 1, 0
	h.served(cases[0])
	for _, c := range cases[1:] {
		if c.Allowed {
			h.allowed(c.Kind, c.message(t))
			allowed++
		} else {
			h.denied(c.Kind, c.message(t), codes.PermissionDenied, "blocked by policy")
			denied++
		}
	}
	if allowed < 20 || denied < 3 {
		t.Errorf("%d requests allowed, %d denied: too few to mean anything", allowed, denied)
	}
	t.Logf("FIGURE session of %d requests allowed, %d denied", allowed, denied)
}

// checkMemory gives policyd a while to give back what compiling the reasons of the session's denials took.
func checkMemory(t *testing.T) {
	rss := memory(t, "VmRSS")
	for end := time.Now().Add(20 * time.Second); rss > maxMemory && time.Now().Before(end); rss = memory(t, "VmRSS") {
		time.Sleep(500 * time.Millisecond)
	}
	t.Logf("FIGURE policyd resident %.1f MiB, of which heap and stacks %.1f, binary %.1f; at most %.1f so far",
		mib(rss), mib(memory(t, "RssAnon")), mib(memory(t, "RssFile")), mib(memory(t, "VmHWM")))
	most := maxMemory
	if cmdline["guesttest.record"] != "" {
		most = maxMemoryRecording
	}
	if rss > most {
		t.Errorf("policyd has %d bytes resident, want %d", rss, most)
	}
}

func mib(n int) float64 { return float64(n) / (1 << 20) }

// killed expects policyd to go on with its policy and the pod's state, and the register as it was.
func killed(t *testing.T, cases []testCase, pcr string) {
	var create, execute testCase
	for _, c := range cases {
		switch {
		case c.Allowed && c.Kind == "CreateContainerRequest":
			create = c
		case c.Allowed && c.Kind == "ExecProcessRequest":
			execute = c
		}
	}
	before := readStatus(t)
	began := time.Now()
	kill(t)
	h := dial(t)
	again := execute.message(t).(*agentpb.ExecProcessRequest)
	again.ExecId = "after-the-kill"
	h.allowed("ExecProcessRequest", again)
	t.Logf("FIGURE decided again %v after kill -9", time.Since(began).Round(time.Millisecond))
	// The state says that the container is there already.
	h.denied("CreateContainerRequest", create.message(t), codes.PermissionDenied, "blocked by policy")
	if got := pcr8(t); got != pcr {
		t.Errorf("PCR 8 is %s, want %s as before", got, pcr)
	}
	if s := readStatus(t); s.Policy != before.Policy || s.Register.State != "measured" {
		t.Errorf("status %+v, want policy %s measured", s, before.Policy)
	}
}

func noDump(t *testing.T) {
	if _, err := os.Stat("/tmp/policy.txt"); err == nil {
		t.Error("/tmp/policy.txt is there, and this is no debug build")
	}
}

// confined looks at what the kernel holds policyd to.
func confined(t *testing.T) {
	text := string(read(t, "/proc/"+strconv.Itoa(policydPID(t))+"/status"))
	for _, want := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("policyd's status does not say %q", want)
		}
	}
	if score := strings.TrimSpace(string(read(t, "/proc/"+strconv.Itoa(policydPID(t))+"/oom_score_adj"))); score != "-997" {
		t.Errorf("oom_score_adj is %s", score)
	}
}

// TestDebugDump holds in the debug build only.
func TestDebugDump(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	if err := h.setPolicy(read(t, policyPath)); err != nil {
		t.Fatal(err)
	}
	create := readCases(t)[0]
	h.served(create)
	for _, c := range readCases(t)[1:] {
		if c.Allowed { // containers too, whose specification the agent prints
			h.allowed(c.Kind, c.message(t))
		}
		if strings.Contains(string(c.Request), secret) {
			break
		}
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(pause) {
		dump, err := os.ReadFile("/tmp/policy.txt")
		if err == nil && strings.Contains(string(dump), create.Kind) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("/tmp/policy.txt does not hold the request: %v", err)
		}
	}
}

// TestInit is a guest whose PID 1 is the agent.
func TestInit(t *testing.T) {
	skipOutside(t)
	h := dial(t)
	h.denied("ListRoutesRequest", &agentpb.ListRoutesRequest{}, codes.PermissionDenied, "policy-not-set")
	policy := read(t, policyPath)
	if err := h.setPolicy(policy); err != nil {
		t.Fatal(err)
	}
	session(t, readCases(t))
	if comm := strings.TrimSpace(string(read(t, "/proc/1/comm"))); comm != "kata-agent" {
		t.Errorf("PID 1 is %q, want the agent", comm)
	}
	if env := read(t, "/proc/1/environ"); len(env) > 0 {
		t.Errorf("PID 1 has an environment: %q", env)
	}
	pcr := pcr8(t)
	kill(t)
	h = dial(t)
	if err := h.setPolicy(policy); err != nil {
		t.Errorf("the same policy after kill -9: %v", err)
	}
	h.denied("SetPolicyRequest", &agentpb.SetPolicyRequest{Policy: "package agent_policy\n"}, codes.PermissionDenied, "")
	if got := pcr8(t); got != pcr || pcr == zeroPCR {
		t.Errorf("PCR 8 is %s, want %s", got, pcr)
	}
}
