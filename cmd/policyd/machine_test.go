// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/ttrpc"
	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"portcullis/agentproto"
	"portcullis/agentproto/agentpb"
	"portcullis/engine/binding"
	"portcullis/internal/agenttest"
	"portcullis/internal/hostdatatest"
	"portcullis/internal/measuretest"
)

const (
	// podPolicy lets a pod's containers be made.
	podPolicy = "package agent_policy\n\ndefault CreateSandboxRequest := true\ndefault CreateContainerRequest := true\ndefault DestroySandboxRequest := true\n"
	// otherPolicy is another one.
	otherPolicy = podPolicy + "# another\n"
	// allowingDefault lets everything be done until a policy is set.
	allowingDefault = podPolicy + "default SetPolicyRequest := true\n"
	testBoot        = "01234567-89ab-cdef-0123-456789abcdef"
)

// machine is a guest with its hardware, in which policyd can be started again and again.
type machine struct {
	t     testing.TB
	dir   string
	guest guest
	conf  config
	agent *agenttest.Agent
	tpm   *measuretest.SWTPM
	log   bytes.Buffer
	// podFact is the fact of the pod's life in whose measurement a child kills itself, from 1; 0: in that of the policy.
	podFact int
}

// newMachine makes an ordinary machine, with the TEE of hardware if there is one. Its policyd would bind automatically.
func newMachine(t testing.TB, hardware hostdatatest.Guest) *machine {
	t.Helper()
	dir, err := os.MkdirTemp("", "pd")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	m := &machine{t: t, dir: dir, agent: agenttest.New(agenttest.Options{})}
	hardware.Root = m.path("root")
	system, err := hardware.System()
	if err != nil {
		t.Fatal(err)
	}
	m.guest = guest{system: system, root: hardware.Root, initdata: m.path("cc"), copies: []string{m.path("peerpod")}, deadline: 10 * time.Second}
	m.disks()
	m.write("default.rego", allowingDefault)
	m.conf = defaultConfig()
	m.conf.Gate.Listen = []string{"unix://" + m.path("gate.sock")}
	m.conf.Gate.Agent = "unix://" + m.path("agent.sock")
	m.conf.Policy.Default = m.path("default.rego")
	m.conf.Log.Events = m.path("run/measure.jsonseq")
	if err := m.agent.Start(m.path("agent.sock")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.agent.Kill)
	m.agentGone()
	return m
}

func (m *machine) path(name string) string { return filepath.Join(m.dir, name) }

func (m *machine) write(name, text string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(name)), 0o700); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(name), []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) read(name string) string {
	m.t.Helper()
	text, err := os.ReadFile(m.path(name))
	if err != nil {
		m.t.Fatal(err)
	}
	return string(text)
}

// agentGone hides the agent's socket, as before the agent has started.
func (m *machine) agentGone() {
	m.t.Helper()
	if err := os.Rename(m.path("agent.sock"), m.path("agent.later")); err != nil {
		m.t.Fatal(err)
	}
}

// agentUp is the agent's start.
func (m *machine) agentUp() {
	m.t.Helper()
	if err := os.Rename(m.path("agent.later"), m.path("agent.sock")); err != nil {
		m.t.Fatal(err)
	}
}

// disks attaches disks in place of those before.
func (m *machine) disks(disks ...hostdatatest.Disk) {
	m.t.Helper()
	old, _ := filepath.Glob(m.path("root/dev/vd*"))
	for _, path := range append(old, m.path("root/sys/block"), m.path("root/sys/devices/pci0000:00")) {
		if err := os.RemoveAll(path); err != nil {
			m.t.Fatal(err)
		}
	}
	d, err := hostdatatest.Disks(m.path("root"), disks...)
	if err != nil {
		m.t.Fatal(err)
	}
	m.guest.disks = d
}

// withTPM gives the machine a software TPM, trusted as an operator may say.
func (m *machine) withTPM(trust string) *machine {
	m.t.Helper()
	tpm, err := measuretest.Start()
	if err != nil {
		missing(m.t, err)
	}
	m.t.Cleanup(func() { tpm.Close() })
	m.tpm = tpm
	m.conf.Binding.VTPM.Device, m.conf.Binding.VTPM.Trust = tpm.Device(), trust
	return m
}

// missing ends a test for want of a tool; where CI is set that is a failure.
func missing(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, measuretest.ErrMissing) || os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip("SKIPPED: ", err)
}

// running is policyd, in this process.
type running struct {
	*machine
	d    *policyDaemon
	stop func()
}

// boot starts policyd and serves.
func (m *machine) boot() *running {
	m.t.Helper()
	d, err := newDaemon(m.t.Context(), m.conf, m.guest, slog.New(slog.NewTextHandler(&m.log, nil)))
	if err != nil {
		m.t.Fatal(err)
	}
	listeners, err := d.listen(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	var served sync.WaitGroup
	for _, l := range listeners {
		served.Add(1)
		go func() { defer served.Done(); _ = d.gate.Serve(context.Background(), l) }()
	}
	endStatus, endRecord := d.serveStatus(m.t.Context()), d.serveRecord(m.t.Context())
	r := &running{machine: m, d: d, stop: sync.OnceFunc(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = d.gate.Shutdown(ctx)
		for _, l := range listeners {
			l.Close() // one that was not served yet
		}
		served.Wait()
		endStatus()
		endRecord()
		d.close()
	})}
	m.t.Cleanup(r.stop)
	return r
}

// request sends one request over a connection of its own.
func (m *machine) request(name string, req proto.Message) error {
	m.t.Helper()
	conn, err := net.Dial("unix", m.path("gate.sock"))
	if err != nil {
		m.t.Fatal(err)
	}
	client := ttrpc.NewClient(conn)
	defer client.Close()
	method, ok := agentproto.Lookup("grpc.AgentService", name)
	if !ok {
		m.t.Fatalf("no method %s", name)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return client.Call(ctx, method.Service, method.Name, req, method.Response.New().Interface())
}

// code is the reason code in the status that a client got, "" for success.
func code(err error) binding.Code {
	if err == nil {
		return ""
	}
	message := status.Convert(err).Message()
	for _, prefix := range []string{"SetPolicyRequest is refused: ", "CreateSandboxRequest is blocked by policy: "} {
		if rest, ok := strings.CutPrefix(message, prefix); ok {
			word, _, _ := strings.Cut(rest, ":")
			return binding.Code(word)
		}
	}
	return binding.Code(message)
}

// setPolicy requires the code of SetPolicy; "" means that it is taken.
func (m *machine) setPolicy(text string, want binding.Code) {
	m.t.Helper()
	err := m.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: text})
	if code(err) != want {
		m.t.Errorf("SetPolicy: %v; want %q", err, want)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		m.t.Errorf("SetPolicy: several lines: %q", err)
	}
}

// sandbox requires the code of a CreateSandbox; "" means that it passes to the agent.
func (m *machine) sandbox(want binding.Code) {
	m.t.Helper()
	err := m.request("CreateSandbox", &agentpb.CreateSandboxRequest{SandboxId: "pod", Hostname: "pod"})
	if code(err) != want {
		m.t.Errorf("CreateSandbox: %v; want %q", err, want)
	}
}

func sum256(text string) []byte {
	d := sha256.Sum256([]byte(text))
	return d[:]
}

// pcr8 reads the register past the code under test, by bank.
func (m *machine) pcr8() map[string]string {
	m.t.Helper()
	t, err := linuxudstpm.Open(strings.TrimPrefix(m.tpm.Device(), "unix://"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer t.Close()
	values := map[string]string{}
	for name, alg := range map[string]tpm2.TPMAlgID{"sha1": tpm2.TPMAlgSHA1, "sha256": tpm2.TPMAlgSHA256, "sha384": tpm2.TPMAlgSHA384, "sha512": tpm2.TPMAlgSHA512} {
		r, err := tpm2.PCRRead{PCRSelectionIn: tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{
			{Hash: alg, PCRSelect: tpm2.PCClientCompatible.PCRs(8)}}}}.Execute(t)
		if err != nil {
			m.t.Fatal(err)
		}
		if len(r.PCRValues.Digests) == 1 {
			values[name] = hex.EncodeToString(r.PCRValues.Digests[0].Buffer)
		}
	}
	return values
}

// extendedBy requires that the sha256 bank holds the digests in turn, and nothing else.
func (m *machine) extendedBy(digests ...[]byte) {
	m.t.Helper()
	value := make([]byte, 32)
	for _, d := range digests {
		next := sha256.Sum256(append(value, d...))
		value = next[:]
	}
	if got := m.pcr8()["sha256"]; got != hex.EncodeToString(value) {
		m.t.Errorf("PCR 8 is %s, want %x: %d extends", got, value, len(digests))
	}
}

// policyctl is the tool as it is installed, built once for all tests.
var policyctl = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "policyctl-test-")
	if err != nil {
		return "", err
	}
	built = append(built, dir)
	path := filepath.Join(dir, "policyctl")
	if out, err := exec.Command("go", "build", "-o", path, "../policyctl").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build policyctl: %w\n%s", err, out)
	}
	return path, nil
})

// ctl runs policyctl in the machine's directory and requires its exit code.
func (m *machine) ctl(exit int, args ...string) string {
	m.t.Helper()
	path, err := policyctl()
	if err != nil {
		m.t.Fatal(err)
	}
	cmd := exec.Command(path, args...)
	cmd.Dir = m.dir
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if cmd.ProcessState == nil || cmd.ProcessState.ExitCode() != exit {
		m.t.Errorf("policyctl %q: %v, want exit code %d\n%s%s", args, err, exit, out.String(), errs.String())
	}
	return out.String()
}

// digests is what policyctl digest --json prints.
type digests struct {
	HostData, MRConfigID struct{ Hex string }
	PCR                  map[string]string
}

func (m *machine) digest(args ...string) digests {
	m.t.Helper()
	var d digests
	if err := json.Unmarshal([]byte(m.ctl(0, append([]string{"digest", "--json"}, args...)...)), &d); err != nil {
		m.t.Fatal(err)
	}
	return d
}
