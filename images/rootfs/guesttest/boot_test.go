// SPDX-License-Identifier: Apache-2.0

package guesttest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"portcullis/engine/fragment"
	"portcullis/measure/evidence"
)

// loopbackPeers lets the guest's own loopback in. The guest says so on its console.
const loopbackPeers = "guesttest.peers=1,2"

// TestGuests boots one guest after another.
func TestGuests(t *testing.T) {
	artifact(t, "vmlinuz")
	t.Log("accelerator: ", accelerator())
	p := newPod(t)
	stage1 := t.TempDir()
	putStage1(t, stage1)
	dir := t.TempDir()
	tree := systemdTree(t, p, installOptions{"BINDING=required", "TPM_TRUST=asserted"})
	b := bench{pod: p, initrd: pack(t, stage1), root: seal(t, tree, filepath.Join(dir, "root")), dir: dir}

	t.Run("pod", b.pods)
	t.Run("record", b.record)
	t.Run("credentials", b.credentials)
	t.Run("stranger", func(t *testing.T) { boot(t, b.machine("TestStranger")) })
	t.Run("kernel command line", b.kernelCommandLine)
	t.Run("initdata", b.initdata)
	t.Run("debug build", b.debugBuild)
	t.Run("flipped bit", b.flippedBit)
	t.Run("agent as init", b.agentAsInit)
}

// record boots a guest that records its pod's life, and verifies the record outside.
func (b bench) record(t *testing.T) {
	tree := systemdTree(t, b.pod, installOptions{"BINDING=required", "TPM_TRUST=asserted"})
	path := filepath.Join(tree, "etc/portcullis/config.toml")
	write(t, path, readFile(t, path)+"\n[measure]\npod = \"pcr\"\n")
	b.root = seal(t, tree, filepath.Join(b.dir, "record"))
	nonce := make([]byte, 20)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	r := boot(t, b.machine("TestPod", loopbackPeers, "guesttest.record=1", "guesttest.fragment=1", "guesttest.nonce="+hex.EncodeToString(nonce)))
	e, options := quoteOf(t, r, nonce, b.pod.policy)
	e.PodPCR, e.Pod = 14, &evidence.Pod{Containers: []evidence.PodContainer{{Name: "$sandbox"}}}
	for i := range containers {
		e.Pod.Containers = append(e.Pod.Containers, evidence.PodContainer{Name: fmt.Sprintf("container-%d", i), AnyExec: true})
	}
	if got := evidence.VerifyTPM(t.Context(), e, options); got.ExitCode() == 0 {
		t.Error("a pod that was updated by a fragment of which the verifier does not know passes")
	}
	e.Fragments = evidence.Fragments{Policy: b.pod.policy, Envelopes: [][]byte{b.pod.fragment}}
	signed, err := fragment.Open(b.pod.fragment)
	if err != nil {
		t.Fatal(err)
	}
	e.Pod.Updated = map[string][]evidence.PodContainer{signed.Digest(): e.Pod.Containers}
	got := evidence.VerifyTPM(t.Context(), e, options)
	if got.ExitCode() != 0 || got.Pod == nil || len(got.Pod.Containers) < containers+1 || len(got.Pod.Execs) == 0 {
		t.Fatalf("the record of the pod's life: %+v", got)
	}
	t.Logf("FIGURE the record has %d events of %d containers", got.Pod.Events, len(got.Pod.Containers))
	e.Pod.Containers = e.Pod.Containers[:containers] // a pod that has one less
	if got := evidence.VerifyTPM(t.Context(), e, options); got.ExitCode() != 1 {
		t.Errorf("a container that is not of the pod: %+v", got)
	}
	verifyByTool(t, e, string(b.pod.policy), "--pod")
}

// bench is what the guests are made of.
type bench struct {
	pod    pod
	initrd string
	root   sealed
	dir    string
}

// machine boots the sealed root filesystem.
func (b bench) machine(test string, cmdline ...string) machine {
	return machine{initrd: b.initrd, disks: []string{b.root.path}, test: test, cmdline: append([]string{b.root.cmdline()}, cmdline...)}
}

func (b bench) pods(t *testing.T) {
	nonce := make([]byte, 20)
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	r := boot(t, b.machine("TestPod", append([]string{loopbackPeers, "guesttest.nonce=" + hex.EncodeToString(nonce)}, talkative...)...))
	onConsole(t, r, "vsock_peers = [1,2]")
	notOnConsole(t, r, secret)
	verifyQuote(t, r, nonce, b.pod.policy)
}

// talkative are words with which a host asks a guest to print more, on both of its consoles and over vsock.
var talkative = []string{"console=hvc0", "loglevel=8", "agent.log=debug", "agent.log_vport=1027", "systemd.setenv=KATA_AGENT_LOG_LEVEL=debug", "systemd.log_target=console",
	"systemd.default_standard_output=tty", "systemd.journald.forward_to_console=1"}

// credentials boots a guest whose host gives systemd credentials by both ways that QEMU has: of files to make and settings of the
// kernel, which are root code of the host's.
func (b bench) credentials(t *testing.T) {
	tree := systemdTree(t, b.pod, installOptions{"BINDING=required", "TPM_TRUST=asserted"}, "*.wants/systemd-tmpfiles-setup*")
	b.root = seal(t, tree, filepath.Join(b.dir, "credentials"))
	files, sysctl := filepath.Join(t.TempDir(), "files"), "kernel.core_pattern=|/run/owned %p"
	write(t, files, "f+ /run/owned 0755 root root - owned\n")
	m := b.machine("TestCredentials", loopbackPeers)
	m.devices = []string{"-fw_cfg", "name=opt/io.systemd.credentials/tmpfiles.extra,file=" + files,
		"-smbios", "type=11,value=io.systemd.credential:sysctl.extra=" + sysctl}
	boot(t, m)
}

var evidenceLine = regexp.MustCompile(`(?m)^\s*EVIDENCE ([0-9a-f]{64}) (\{.*\})$`)

// quoteOf finds a guest's evidence in what it printed.
func quoteOf(t *testing.T, r report, nonce, policy []byte) (evidence.TPM, evidence.Options) {
	t.Helper()
	digest := sha256.Sum256(policy)
	line := evidenceLine.FindStringSubmatch(r.results)
	if line == nil {
		t.Fatalf("no evidence in the results\n%s", r.results)
	}
	var e evidence.TPM
	if err := json.Unmarshal([]byte(line[2]), &e); err != nil {
		t.Fatal(err)
	}
	e.Nonce, e.PCR, e.Bound = nonce, 8, evidence.Bound{Alg: "sha256", Digest: digest[:]}
	// swtpm has no maker whose certificate would say that the key is in a TPM.
	return e, evidence.Options{TrustAK: true}
}

// verifyQuote is the verifier outside: it trusts nothing of the guest but the TPM's key.
func verifyQuote(t *testing.T, r report, nonce, policy []byte) {
	t.Helper()
	e, options := quoteOf(t, r, nonce, policy)
	if got := evidence.VerifyTPM(t.Context(), e, options); got.ExitCode() != 0 {
		t.Errorf("the quote does not verify: %+v", got)
	}
	stale, other := e, e
	stale.Nonce = bytes.Repeat([]byte{1}, len(nonce))
	other.Bound.Digest = make([]byte, 32)
	for name, bad := range map[string]evidence.TPM{"another nonce": stale, "another policy": other} {
		if got := evidence.VerifyTPM(t.Context(), bad, options); got.ExitCode() != 1 {
			t.Errorf("the quote verifies for %s: %+v", name, got)
		}
	}
	verifyByTool(t, e, string(policy))
}

// verifyByTool does the same with policyctl, as an operator would. The policy is given with the flags too.
func verifyByTool(t *testing.T, e evidence.TPM, policy string, flags ...string) {
	t.Helper()
	dir := t.TempDir()
	if kept := os.Getenv("PORTCULLIS_GUEST_LOGS"); kept != "" {
		dir = kept
	}
	for name, data := range map[string][]byte{"quote": e.Quote, "signature": e.Signature, "ak": e.AK, "log": e.Log, "pcrs": e.PCRs, "policy": []byte(policy)} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"verify", "tpm", "--trust-ak", "--nonce", hex.EncodeToString(e.Nonce)}
	for _, name := range []string{"quote", "signature", "ak", "log", "pcrs", "policy"} {
		args = append(args, "--"+name, filepath.Join(dir, name))
	}
	for _, flag := range flags {
		args = append(args, flag, filepath.Join(dir, "policy"))
	}
	for i, envelope := range e.Fragments.Envelopes {
		path := filepath.Join(dir, fmt.Sprintf("fragment-%d", i))
		if err := os.WriteFile(path, envelope, 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--fragment", path)
	}
	t.Log(run(t, nil, artifact(t, "policyctl"), args...))
}

func (b bench) kernelCommandLine(t *testing.T) {
	boot(t, b.machine("TestKernelCommandLine", loopbackPeers, "agent.debug_console", "agent.debug_console_vport=1026",
		"agent.log_vport=1027", "agent.passfd_listener_port=1028", "agent.server_addr=vsock://-1:1029",
		"systemd.setenv=KATA_AGENT_SERVER_ADDR=vsock://-1:1030"))
	t.Run("configuration file", func(t *testing.T) {
		boot(t, b.machine("TestStranger", "agent.config_file=/does/not/exist"))
	})
}

func (b bench) initdata(t *testing.T) {
	var image bytes.Buffer
	if err := b.pod.initdata.WriteImage(&image); err != nil {
		t.Fatal(err)
	}
	corrupted := bytes.Clone(image.Bytes())
	corrupted[image.Len()/2] ^= 1
	measured := sha256.Sum256([]byte("another document"))
	tests := []struct {
		name, test string
		images     [][]byte
		code       string // the reason of every denial
		cmdline    []string
	}{
		{name: "found", test: "TestInitdata", images: [][]byte{image.Bytes()}},
		{name: "changed after the read", test: "TestInitdataChanged", images: [][]byte{image.Bytes()}, code: "initdata-changed"},
		{name: "corrupted", test: "TestInitdataRefused", images: [][]byte{corrupted}, code: "initdata-invalid"},
		{name: "twice", test: "TestInitdataRefused", images: [][]byte{image.Bytes(), image.Bytes()}, code: "initdata-invalid"},
		{name: "another digest is bound", test: "TestInitdataRefused", images: [][]byte{image.Bytes()}, code: "pcr-unexpected",
			cmdline: []string{"guesttest.measured=" + hex.EncodeToString(measured[:])}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := b.machine(tt.test, append(tt.cmdline, loopbackPeers, "guesttest.code="+tt.code)...)
			for _, data := range tt.images {
				disk := filepath.Join(t.TempDir(), "initdata")
				if err := os.WriteFile(disk, data, 0o644); err != nil {
					t.Fatal(err)
				}
				m.disks = append(m.disks, disk)
			}
			boot(t, m)
		})
	}
}

func (b bench) debugBuild(t *testing.T) {
	tree := systemdTree(t, b.pod, installOptions{"AGENT_POLICY_DEBUG=yes", "BINDING=required", "TPM_TRUST=asserted"})
	b.root = seal(t, tree, filepath.Join(b.dir, "debug"))
	r := boot(t, b.machine("TestDebugDump", loopbackPeers))
	onConsole(t, r, "DEBUG LOG IS ON")
	onConsole(t, r, secret) // so the test of guests that keep it could have failed
}

// flippedBit expects a guest that stops when it reads what it was not measured with.
func (b bench) flippedBit(t *testing.T) {
	copied := filepath.Join(t.TempDir(), "root")
	run(t, nil, "cp", "--reflink=auto", b.root.path, copied)
	flip(t, copied, artifact(t, "policyd"))
	b.root.path = copied
	m := b.machine("TestFlippedBit", loopbackPeers)
	m.fails = true
	r := boot(t, m)
	onConsole(t, r, "is corrupted")
	if strings.Contains(r.results, "GUEST EXIT") {
		t.Errorf("the guest ran on: %s", r.results)
	}
}

// agentAsInit boots a RAM disk without systemd. The kernel makes an environment of words it does not know.
func (b bench) agentAsInit(t *testing.T) {
	dir := t.TempDir()
	putStage1(t, dir)
	putTests(t, dir, b.pod)
	// osbuilder leaves the agent as /sbin/init.
	copyFile(t, filepath.Join(dir, "usr/bin/kata-agent"), filepath.Join(dir, "sbin/init"), 0o755)
	if err := os.Remove(filepath.Join(dir, "usr/bin/kata-agent")); err != nil {
		t.Fatal(err)
	}
	install(t, dir, installOptions{"AGENT_INIT=yes", "BINDING=required", "TPM_TRUST=asserted"})
	r := boot(t, machine{initrd: pack(t, dir), test: "TestInit", cmdline: []string{loopbackPeers, "KATA_AGENT_SERVER_ADDR=vsock://-1:1030",
		"agent.debug_console", "agent.debug_console_vport=1026", "agent.log=debug", "KATA_AGENT_LOG_LEVEL=debug"}})
	notOnConsole(t, r, secret)
}

func notOnConsole(t *testing.T, r report, text string) {
	t.Helper()
	if at := strings.Index(r.console, text); at >= 0 {
		t.Errorf("the console says %q\n%s", text, r.console[max(0, at-300):at+len(text)])
	}
}

func onConsole(t *testing.T, r report, text string) {
	t.Helper()
	if !strings.Contains(r.console, text) {
		t.Errorf("the console does not say %q\n%s", text, tail(r.console))
	}
}
