// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha512"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"portcullis/engine/binding"
	"portcullis/internal/hostdatatest"
)

// TestSNP takes a policy through the whole of policyd, over a report made by hand: only the match activates.
func TestSNP(t *testing.T) {
	flip := func(at int) func([]byte) { return func(r []byte) { r[at] ^= 1 } }
	tests := []struct {
		name   string
		change func(*hostdatatest.SNP)
		code   binding.Code
	}{
		{"match", nil, ""},
		{"match in a version 2 report", func(d *hostdatatest.SNP) { d.Version = 2 }, ""},
		{"match in a version 5 report", func(d *hostdatatest.SNP) { d.Version = 5 }, ""},
		{"match at VMPL 2", func(d *hostdatatest.SNP) { d.VMPL = 2 }, ""},
		{"first byte differs in one bit", func(d *hostdatatest.SNP) { d.HostData[0] ^= 1 }, binding.CodeDigestMismatch},
		{"last byte differs in one bit", func(d *hostdatatest.SNP) { d.HostData[31] ^= 0x80 }, binding.CodeDigestMismatch},
		{"another policy is bound", func(d *hostdatatest.SNP) { copy(d.HostData[:], sum256(otherPolicy)) }, binding.CodeDigestMismatch},
		{"nothing is bound", func(d *hostdatatest.SNP) { d.HostData = [32]byte{} }, binding.CodeFieldZero},
		{"short report", func(d *hostdatatest.SNP) { d.Size = 1000 }, binding.CodeReportInvalid},
		{"version 1", func(d *hostdatatest.SNP) { d.Version = 1 }, binding.CodeReportInvalid},
		{"version 6", func(d *hostdatatest.SNP) { d.Version = 6 }, binding.CodeReportInvalid},
		{"another nonce", func(d *hostdatatest.SNP) { d.Edit = flip(0x50) }, binding.CodeReportInvalid},
		{"another VMPL", func(d *hostdatatest.SNP) { d.Edit = flip(0x30) }, binding.CodeReportInvalid},
		{"debug", func(d *hostdatatest.SNP) { d.Policy = hostdatatest.PolicyDebug }, binding.CodeDebugGuest},
		{"EIO", func(d *hostdatatest.SNP) { d.Errno = syscall.EIO }, binding.CodeFieldRead},
		{"key gone", func(d *hostdatatest.SNP) { d.Errno = syscall.ENOTTY }, binding.CodeFieldRead},
		{"firmware refuses", func(d *hostdatatest.SNP) { d.Status = 0x16 }, binding.CodeFieldRead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &hostdatatest.SNP{HostData: [32]byte(sum256(podPolicy))}
			if tt.change != nil {
				tt.change(d)
			}
			m := newMachine(t, hostdatatest.Guest{SNP: d})
			m.boot().onlyTheMatch(tt.code)
			if d.Calls() > 1 {
				t.Errorf("%d requests to the security processor, want 1", d.Calls())
			}
		})
	}
}

// onlyTheMatch sends several policies and requires that podPolicy gives the code, and that nothing is open unless it is taken.
func (r *running) onlyTheMatch(want binding.Code) {
	r.t.Helper()
	r.agentUp()
	if want != "" && want != binding.CodeDigestMismatch {
		r.sandbox(want)
	} else {
		r.sandbox(binding.CodeNotSet)
	}
	r.setPolicy(podPolicy, want)
	r.setPolicy(podPolicy, want)
	if want == "" {
		r.sandbox("")
		return
	}
	if n := r.agent.Calls("CreateSandbox"); n != 0 {
		r.t.Errorf("%d requests reached the agent", n)
	}
}

func TestTDX(t *testing.T) {
	fit := func(digest []byte) (f [48]byte) { copy(f[:], digest); return f }
	sha384 := sha512.Sum384([]byte(podPolicy))
	sha512sum := sha512.Sum512([]byte(podPolicy))
	flip := func(at int) func([]byte) { return func(r []byte) { r[at] ^= 1 } }
	tests := []struct {
		name   string
		alg    string
		change func(*hostdatatest.TDX)
		code   binding.Code
	}{
		{"sha256 padded", "sha256", nil, ""},
		{"sha384", "sha384", func(d *hostdatatest.TDX) { d.MRConfigID = sha384 }, ""},
		{"sha512 cut", "sha512", func(d *hostdatatest.TDX) { d.MRConfigID = fit(sha512sum[:]) }, ""},
		{"first byte differs in one bit", "sha256", func(d *hostdatatest.TDX) { d.MRConfigID[0] ^= 1 }, binding.CodeDigestMismatch},
		{"last byte of the digest differs", "sha256", func(d *hostdatatest.TDX) { d.MRConfigID[31] ^= 1 }, binding.CodeDigestMismatch},
		{"first byte of the padding set", "sha256", func(d *hostdatatest.TDX) { d.MRConfigID[32] = 1 }, binding.CodeDigestMismatch},
		{"last byte of the padding set", "sha256", func(d *hostdatatest.TDX) { d.MRConfigID[47] = 1 }, binding.CodeDigestMismatch},
		{"words swapped", "sha384", func(d *hostdatatest.TDX) {
			for i := 0; i < 48; i += 8 {
				binary.BigEndian.PutUint64(d.MRConfigID[i:], binary.LittleEndian.Uint64(sha384[i:]))
			}
		}, binding.CodeDigestMismatch},
		{"sha256 where sha384 is configured", "sha384", nil, binding.CodeDigestMismatch},
		{"nothing is bound", "sha256", func(d *hostdatatest.TDX) { d.MRConfigID = [48]byte{} }, binding.CodeFieldZero},
		{"wrong type", "sha256", func(d *hostdatatest.TDX) { d.EditHashed = flip(0) }, binding.CodeReportInvalid},
		{"another nonce", "sha256", func(d *hostdatatest.TDX) { d.EditHashed = flip(128) }, binding.CodeReportInvalid},
		{"hash of TDINFO wrong", "sha256", func(d *hostdatatest.TDX) { d.EditHashed = flip(80) }, binding.CodeReportInvalid},
		{"mrconfigid changed under its hash", "sha256", func(d *hostdatatest.TDX) { d.EditHashed = flip(576) }, binding.CodeReportInvalid},
		{"debug", "sha256", func(d *hostdatatest.TDX) { d.Attributes = 1 }, binding.CodeDebugGuest},
		{"EIO", "sha256", func(d *hostdatatest.TDX) { d.Errno = syscall.EIO }, binding.CodeFieldRead},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := &hostdatatest.TDX{MRConfigID: fit(sum256(podPolicy))}
			if tt.change != nil {
				tt.change(d)
			}
			m := newMachine(t, hostdatatest.Guest{TDX: d})
			m.conf.Binding.Alg = tt.alg
			m.boot().onlyTheMatch(tt.code)
		})
	}
}

// TestNoReadAfterStart: the field is read once, whatever SetPolicy does.
func TestNoReadAfterStart(t *testing.T) {
	d := &hostdatatest.SNP{HostData: [32]byte(sum256(podPolicy))}
	m := newMachine(t, hostdatatest.Guest{SNP: d})
	r := m.boot()
	for range 5 {
		m.setPolicy(otherPolicy, binding.CodeDigestMismatch)
	}
	m.setPolicy(podPolicy, "")
	m.ctl(0, "status", "--socket", m.path("run/status.sock"))
	r.stop()
	m.boot()
	if d.Calls() != 2 {
		t.Errorf("%d requests to the security processor by two processes, want 2", d.Calls())
	}
}

// TestHangingSecurityProcessor: start is bounded, and what did not answer is closed.
func TestHangingSecurityProcessor(t *testing.T) {
	hang := make(chan struct{})
	t.Cleanup(func() { close(hang) })
	m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{Hang: hang}})
	m.guest.deadline = 50 * time.Millisecond
	start := time.Now()
	m.boot().onlyTheMatch(binding.CodeFieldRead)
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("start took %v", took)
	}
}

// TestModes: what a guest shows and what its configuration says, and what comes of it.
func TestModes(t *testing.T) {
	snp := func() hostdatatest.Guest {
		return hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(podPolicy))}}
	}
	tdx := func() hostdatatest.Guest {
		return hostdatatest.Guest{TDX: &hostdatatest.TDX{MRConfigID: [48]byte(append(sum256(podPolicy), make([]byte, 16)...))}}
	}
	both := func() hostdatatest.Guest { return hostdatatest.Guest{SNP: snp().SNP, TDX: tdx().TDX} }
	plain := func() hostdatatest.Guest { return hostdatatest.Guest{} }
	remove := func(name string) func(*machine) {
		return func(m *machine) { os.RemoveAll(m.path("root" + name)) }
	}
	driver := func(name string) func(*machine) {
		return func(m *machine) {
			m.write("root/sys/drivers/"+name+"/x", "")
			m.write("root/sys/class/tpm/tpm0/device/x", "")
			if err := os.Symlink(m.path("root/sys/drivers/"+name), m.path("root/sys/class/tpm/tpm0/device/driver")); err != nil {
				m.t.Fatal(err)
			}
		}
	}
	tpmNode := func(m *machine) { m.write("root/dev/tpmrm0", "") }
	type set = func(*bindingConfig)
	mode := func(mode string) set { return func(c *bindingConfig) { c.Mode = mode } }
	backend := func(mode, backend, trust string) set {
		return func(c *bindingConfig) { c.Mode, c.Backend, c.VTPM.Trust = mode, backend, trust }
	}
	tests := []struct {
		name    string
		guest   func() hostdatatest.Guest
		config  set
		change  func(*machine)
		denied  binding.Code
		open    bool
		backend string
		binding string
		note    string
	}{
		{name: "auto, plain", guest: plain, config: mode("auto"), open: true, backend: "none", binding: "none"},
		{name: "off, plain", guest: plain, config: mode("off"), open: true, backend: "none", binding: "none"},
		{name: "required, plain", guest: plain, config: mode("required"), denied: binding.CodeNoBackend, backend: "none", binding: "none"},
		{name: "auto, SNP", guest: snp, config: mode("auto"), backend: "snp", binding: "policy"},
		{name: "required, SNP", guest: snp, config: mode("required"), backend: "snp", binding: "policy"},
		{name: "off, SNP", guest: snp, config: mode("off"), denied: binding.CodeModeRefused, backend: "none", binding: "none"},
		{name: "auto, TDX", guest: tdx, config: mode("auto"), backend: "tdx", binding: "policy"},
		{name: "off, TDX", guest: tdx, config: mode("off"), denied: binding.CodeModeRefused, backend: "none", binding: "none"},
		{name: "two TEEs", guest: both, config: mode("auto"), denied: binding.CodeNoBackend, backend: "none", binding: "none"},
		{name: "two TEEs, vtpm", guest: both, config: backend("auto", "vtpm", "asserted"), denied: binding.CodeNoBackend, backend: "none", binding: "none"},
		{name: "SNP wanted, TDX there", guest: tdx, config: backend("auto", "snp", ""), denied: binding.CodeNoBackend, backend: "none", binding: "none"},
		{name: "SNP wanted, nothing there", guest: plain, config: backend("auto", "snp", ""), denied: binding.CodeNoBackend, backend: "none", binding: "none"},
		{name: "SNP without its device", guest: snp, config: mode("auto"), change: remove("/dev/sev-guest"), denied: binding.CodeFieldRead, backend: "none", binding: "none"},
		{name: "off, SNP without its device", guest: snp, config: mode("off"), change: remove("/dev/sev-guest"), denied: binding.CodeFieldRead, backend: "none", binding: "none"},
		{name: "no sysfs", guest: plain, config: mode("auto"), change: remove("/sys/devices"), denied: binding.CodeFieldRead, backend: "none", binding: "none"},
		{name: "no procfs", guest: plain, config: mode("off"), change: remove("/proc"), denied: binding.CodeFieldRead, backend: "none", binding: "none"},
		{name: "TPM without trust", guest: plain, config: mode("auto"), change: tpmNode, open: true, backend: "vtpm", binding: "none", note: "measured pcr8"},
		{name: "off, TPM without trust", guest: plain, config: mode("off"), change: tpmNode, open: true, backend: "none", binding: "none"},
		{name: "required, TPM without trust", guest: plain, config: mode("required"), change: tpmNode, denied: binding.CodeTPMUntrusted, backend: "none", binding: "none"},
		{name: "vtpm without trust beside SNP", guest: snp, config: backend("auto", "vtpm", ""), change: tpmNode, denied: binding.CodeTPMUntrusted, backend: "none", binding: "none"},
		{name: "TPM trusted", guest: plain, config: backend("auto", "auto", "asserted"), change: tpmNode, backend: "vtpm", binding: "policy"},
		{name: "TPM trusted, missing", guest: plain, config: backend("auto", "auto", "azure-paravisor"), backend: "vtpm", binding: "policy"},
		{name: "svsm", guest: plain, config: backend("auto", "auto", "svsm"), change: driver("tpm-svsm"), backend: "vtpm", binding: "policy"},
		{name: "svsm, another driver", guest: plain, config: backend("auto", "auto", "svsm"), change: driver("tpm_tis"), denied: binding.CodeTPMUntrusted, backend: "vtpm", binding: "none"},
		{name: "svsm, no TPM", guest: plain, config: backend("auto", "auto", "svsm"), denied: binding.CodeNoBackend, backend: "vtpm", binding: "none"},
		{name: "svsm over a socket", guest: plain, config: func(c *bindingConfig) {
			c.VTPM.Trust, c.VTPM.Device = "svsm", "unix:///run/tpm.sock"
		}, denied: binding.CodeTPMUntrusted, backend: "vtpm", binding: "none"},
		{name: "initdata wanted, none there", guest: snp, config: func(c *bindingConfig) { c.Binding = "initdata" }, denied: binding.CodeInitdataInvalid, backend: "snp", binding: "none"},
		{name: "initdata wanted and off", guest: snp, config: func(c *bindingConfig) { c.Binding, c.Initdata = "initdata", "off" }, denied: binding.CodeInitdataInvalid, backend: "snp", binding: "none"},
		{name: "initdata file missing", guest: plain, config: func(c *bindingConfig) { c.Initdata = "/nonexistent/initdata" }, denied: binding.CodeInitdataInvalid, backend: "none", binding: "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t, tt.guest())
			tt.config(&m.conf.Binding)
			if tt.change != nil {
				tt.change(m)
			}
			c := bind(t.Context(), m.conf, m.guest, testBoot, slog.New(slog.DiscardHandler)).out
			var denied binding.Code
			if c.Denied != nil {
				denied = c.Denied.Code
			}
			if denied != tt.denied || c.Open != tt.open || c.Strict == tt.open {
				t.Errorf("denied %q (%v), open %t, strict %t; want %q, %t, %t", denied, c.Denied, c.Open, c.Strict, tt.denied, tt.open, !tt.open)
			}
			if c.Facts.Backend != tt.backend || c.Facts.Binding != tt.binding || c.Facts.Note != tt.note {
				t.Errorf("facts %+v, want %s, %s, %q", c.Facts, tt.backend, tt.binding, tt.note)
			}
			if c.Denied != nil && strings.Contains(c.Denied.Error(), "\n") {
				t.Errorf("several lines: %q", c.Denied)
			}
		})
	}
}

// TestTrustedTPMThatIsMissing: trust is set, so its absence is no reason to go on without.
func TestTrustedTPMThatIsMissing(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{})
	m.conf.Binding.VTPM.Trust, m.conf.Binding.VTPM.Device = "asserted", m.path("no-tpm")
	m.boot().onlyTheMatch(binding.CodeNoBackend)
}

// TestRequiredRefusesAPolicyThatWaivesDenials through the whole of policyd.
func TestRequiredRefusesAPolicyThatWaivesDenials(t *testing.T) {
	text := podPolicy + "AllowRequestsFailingPolicy := true\n"
	m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(text))}})
	m.boot()
	m.setPolicy(text, binding.CodePolicyWaives)
}

func TestConfigurationOfTheRegister(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"[binding.vtpm]\npcr = 16\n", "PCR 16 can be reset"},
		{"[binding.vtpm]\npcr = 23\n", "PCR 23 can be reset"},
		{"[binding.vtpm]\npcr = 17\n", "PCR 17 cannot be extended"},
		{"[binding.vtpm]\npcr = 0\n", "PCR 0 belongs to the firmware"},
		{"[binding.vtpm]\npcr = 24\n", "PCR 24 does not exist"},
		{"[binding.vtpm]\npcr = -1\n", "no such register"},
		{"[binding.vtpm]\npcr = 4294967304\n", "no such register"},
		{"[binding.vtpm]\ndevice = \"tcp://x\"\n", "want a device file"},
		{"[binding]\nbackend = \"vtpm\"\nalg = \"sha384\"\n", "a vTPM takes sha256 only"},
	} {
		_, err := parseConfig([]byte(tt.text))
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want one line with %q", tt.text, err, tt.want)
		}
	}
	for pcr := 8; pcr <= 15; pcr++ {
		c := defaultConfig()
		c.Binding.VTPM.PCR = pcr
		if err := c.validate(); err != nil {
			t.Errorf("PCR %d: %v", pcr, err)
		}
	}
}

// TestRunDirectoryThatCannotBeWritten: policyd does not start, so nothing listens.
func TestRunDirectoryThatCannotBeWritten(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{})
	m.write("file", "")
	m.conf.Log.Events = filepath.Join(m.path("file"), "run", "log")
	if _, err := newDaemon(context.Background(), m.conf, m.guest, slog.New(slog.DiscardHandler)); err == nil || strings.Contains(err.Error(), "\n") {
		t.Errorf("newDaemon: %v, want one line", err)
	}
}

func TestKernelCommandLineOnlyTightens(t *testing.T) {
	for _, tt := range []struct {
		cmdline, mode, debugLog string
		refused                 bool
	}{
		{"console=hvc0 quiet", "auto", "/log", false},
		{"portcullis.mode=required", "required", "/log", false},
		{"portcullis.debug_log=off", "auto", "", false},
		{"portcullis.mode=off", "", "", true},
		{"portcullis.mode=auto", "", "", true},
		{"portcullis.mode", "", "", true},
		{"portcullis.debug_log=/tmp/x", "", "", true},
	} {
		c := defaultConfig()
		c.Policy.DebugLog = "/log"
		err := c.tighten(tt.cmdline)
		if (err != nil) != tt.refused || err == nil && (c.Binding.Mode != tt.mode || c.Policy.DebugLog != tt.debugLog) {
			t.Errorf("%q: mode %s, decision log %q, %v", tt.cmdline, c.Binding.Mode, c.Policy.DebugLog, err)
		}
	}
}

// TestLogsHoldNoPolicy: neither a policy that is taken nor one that is refused is in the log; the decision log is announced.
func TestLogsHoldNoPolicy(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{SNP: &hostdatatest.SNP{HostData: [32]byte(sum256(podPolicy))}})
	m.conf.Policy.DebugLog = m.path("debug.log")
	r := m.boot()
	m.setPolicy(otherPolicy, binding.CodeDigestMismatch)
	m.setPolicy("package agent_policy\n\nhidden := }\n", binding.CodeDigestMismatch)
	m.setPolicy(podPolicy, "")
	r.stop()
	if log := m.log.String(); !strings.Contains(log, "DEBUG LOG IS ON") || strings.Contains(log, "default CreateSandboxRequest") || strings.Contains(log, "hidden") {
		t.Errorf("log:\n%s", log)
	}
}
