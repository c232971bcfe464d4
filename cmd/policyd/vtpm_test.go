// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-tpm/tpm2/transport"

	"portcullis/agentproto/agentpb"
	"portcullis/engine/binding"
	"portcullis/internal/hostdatatest"
	"portcullis/measure/eventlog"
)

// tool runs one of tpm2-tools in the machine's directory, and clears what it leaves in the TPM.
func (m *machine) tool(name string, args ...string) string {
	m.t.Helper()
	out, err := m.tpm.Tool(m.dir, name, args...)
	if err != nil {
		missing(m.t, err)
	}
	for _, what := range []string{"-t", "-l"} {
		if _, err := m.tpm.Tool(m.dir, "tpm2_flushcontext", what); err != nil {
			m.t.Fatal(err)
		}
	}
	return string(out)
}

// TestSetPolicyExtendsEveryBank: over the gate, into a real TPM, as tpm2-tools read it and policyctl says beforehand.
func TestSetPolicyExtendsEveryBank(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.write("policy.rego", podPolicy)
	want := m.digest(m.path("policy.rego")).PCR
	m.boot()
	m.agentUp()
	m.sandbox(binding.CodeNotSet)
	m.setPolicy(podPolicy, "")
	m.setPolicy(podPolicy, "")
	m.setPolicy(otherPolicy, binding.CodeForbidden)
	m.sandbox("")
	out := strings.ToLower(m.tool("tpm2_pcrread", "sha1:8+sha256:8+sha384:8+sha512:8"))
	for _, bank := range []string{"sha1", "sha256", "sha384", "sha512"} {
		if !strings.Contains(out, "0x"+want[bank]) {
			t.Errorf("tpm2_pcrread does not show %s of bank %s:\n%s", want[bank], bank, out)
		}
	}
	if !maps.Equal(m.pcr8(), want) {
		t.Errorf("PCR 8 %v, policyctl digest %v", m.pcr8(), want)
	}
	records, err := eventlog.Decode([]byte(m.read("run/measure.jsonseq")))
	if err != nil || len(records) != 1 {
		t.Errorf("event log: %v, %d records", err, len(records))
	}
}

// TestQuoteVerifies: a quote of tpm2-tools over what SetPolicy extended passes policyctl verify, and nothing else does.
func TestQuoteVerifies(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.boot()
	m.setPolicy(podPolicy, "")
	m.write("policy.rego", podPolicy)
	m.write("other.rego", otherPolicy)
	m.tool("tpm2_createek", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub")
	m.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
	m.tool("tpm2_quote", "-c", "ak.ctx", "-l", "sha256:8", "-q", "00112233", "-m", "q.msg", "-s", "q.sig", "-o", "q.pcrs", "-g", "sha256")
	log := m.read("run/measure.jsonseq")
	m.write("log", log)
	m.write("changed.log", strings.Replace(log, fmt.Sprintf("%x", sum256(podPolicy)), fmt.Sprintf("%x", sum256(otherPolicy)), -1))
	m.write("longer.log", log+log)
	verify := func(exit int, change ...string) string {
		t.Helper()
		flags := map[string]string{"--quote": "q.msg", "--signature": "q.sig", "--ak": "ak.pub", "--pcrs": "q.pcrs", "--log": "log",
			"--nonce": "00112233", "--policy": "policy.rego", "--trust-ak": "true"}
		for i := 0; i < len(change); i += 2 {
			flags[change[i]] = change[i+1]
		}
		args := []string{"verify", "tpm", "--json"}
		for _, name := range slices.Sorted(maps.Keys(flags)) {
			args = append(args, name+"="+flags[name])
		}
		return m.ctl(exit, args...)
	}
	verify(0)
	for _, tt := range []struct {
		name, flag, value, check string
		exit                     int
	}{
		{"another policy", "--policy", "other.rego", "policy", 1},
		{"changed log", "--log", "changed.log", "event-log", 1},
		{"log with an event more", "--log", "longer.log", "event-log", 1},
		{"another nonce", "--nonce", "00112234", "nonce", 1},
		{"another register", "--pcr", "9", "pcrs", 1},
		{"key of unknown origin", "--trust-ak", "false", "ak", 3},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var result struct {
				Checks []struct{ Name, Verdict, Reason string }
			}
			if err := json.Unmarshal([]byte(verify(tt.exit, tt.flag, tt.value)), &result); err != nil {
				t.Fatal(err)
			}
			for _, c := range result.Checks {
				if (c.Name == tt.check) != (c.Verdict != "pass") && c.Name != "policy" {
					t.Errorf("check %s: %s", c.Name, c.Verdict)
				}
				if c.Name == "ak" && tt.check == "ak" && c.Reason != "ak-unbound" {
					t.Errorf("reason %q, want ak-unbound", c.Reason)
				}
			}
		})
	}
}

// TestRogueFirst: a container that the default policy let run, then the good policy. The register stays as it was.
func TestRogueFirst(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("")
	m.boot()
	m.agentUp()
	m.sandbox("")
	m.setPolicy(podPolicy, binding.CodeAlreadyRunning)
	m.extendedBy()
	s := m.ctl(0, "status", "--socket", m.path("run/status.sock"))
	if !strings.Contains(s, "binding     none, measured pcr8") || !strings.Contains(s, "state       default") {
		t.Errorf("status:\n%s", s)
	}
}

// TestDefaultForbidsSetPolicy: refused, and the register stays as it was.
func TestDefaultForbidsSetPolicy(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.write("default.rego", "package agent_policy\n\ndefault SetPolicyRequest := false\n")
	m.boot()
	m.setPolicy(podPolicy, binding.CodeForbidden)
	m.extendedBy()
}

// TestPolicyUpdate measures a later policy too.
func TestPolicyUpdate(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.conf.Binding.PolicyUpdate = "extend"
	first := m.boot()
	m.agentUp()
	updatable := podPolicy + "default SetPolicyRequest := true\n"
	m.setPolicy(updatable, "")
	m.sandbox("")
	m.setPolicy(otherPolicy, "")
	m.extendedBy(sum256(updatable), sum256(otherPolicy))
	m.setPolicy(updatable, binding.CodeForbidden)
	first.stop()
	m.boot()
	m.setPolicy(otherPolicy, "")
	m.extendedBy(sum256(updatable), sum256(otherPolicy))
}

// TestParallelSetPolicyOnATPM: through the gate, the same and different.
func TestParallelSetPolicyOnATPM(t *testing.T) {
	for _, different := range []bool{false, true} {
		m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
		r := m.boot()
		taken := make(chan string, 64)
		for i := range 64 {
			text := podPolicy + "default SetPolicyRequest := true\n"
			if different {
				text += fmt.Sprintf("# %d\n", i)
			}
			go func() {
				if r.d.chain.SetPolicy(t.Context(), []byte(text)) != nil {
					text = ""
				}
				taken <- text
			}()
		}
		winners := map[string]int{}
		for range 64 {
			if text := <-taken; text != "" {
				winners[text]++
			}
		}
		if len(winners) != 1 {
			t.Fatalf("%d policies were taken", len(winners))
		}
		for text, n := range winners {
			if n != map[bool]int{false: 64, true: 1}[different] {
				t.Errorf("different %t: %d were told yes", different, n)
			}
			m.extendedBy(sum256(text))
		}
		r.stop()
	}
}

// TestBadTPM: one clear line each, and nothing open.
func TestBadTPM(t *testing.T) {
	tests := []struct {
		name   string
		change func(*machine)
		code   binding.Code
		says   string
	}{
		{"no TPM", func(m *machine) { m.conf.Binding.VTPM.Device = m.path("none") }, binding.CodeNoBackend, "no TPM at"},
		{"a file in its place", func(m *machine) {
			m.write("tpm", "")
			m.write("root"+m.path("tpm"), "")
			m.conf.Binding.VTPM.Device = m.path("tpm")
		}, binding.CodeNoBackend, "no TPM at"},
		{"a busy TPM", func(m *machine) {
			m.guest.dial = func() (transport.TPMCloser, error) {
				return nil, &os.PathError{Op: "open", Path: "/dev/tpm0", Err: syscall.EBUSY}
			}
		}, binding.CodeNoBackend, "another process has"},
		{"the sha256 bank is missing", func(m *machine) {
			m.tool("tpm2_pcrallocate", "sha256:none+sha384:all")
			if err := m.tpm.Restart(); err != nil {
				m.t.Fatal(err)
			}
		}, binding.CodeNoBackend, "the sha256 bank has no PCR 8"},
		{"another program extended", func(m *machine) {
			m.tool("tpm2_pcrextend", "8:sha256="+strings.Repeat("ab", 32))
		}, binding.CodePCRUnexpected, "extended by another program"},
		{"log of another boot", func(m *machine) {
			m.write("run/measure.jsonseq", "\x1e{}\n")
		}, binding.CodeLogFailed, "event log"},
	}
	for _, trust := range []string{"asserted", ""} {
		for _, tt := range tests {
			t.Run(tt.name+", trust "+trust, func(t *testing.T) {
				m := newMachine(t, hostdatatest.Guest{}).withTPM(trust)
				tt.change(m)
				if trust == "" && tt.name == "no TPM" {
					return // an ordinary machine, see TestModes
				}
				m.boot()
				m.agentUp()
				m.sandbox(tt.code)
				err := m.request("SetPolicy", &agentpb.SetPolicyRequest{Policy: podPolicy})
				if code(err) != tt.code || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "\n") {
					t.Errorf("SetPolicy: %v; want one line with %s and %q", err, tt.code, tt.says)
				}
				m.sandbox(tt.code)
				out := m.ctl(1, "status", "--socket", m.path("run/status.sock"))
				if !strings.Contains(out, "reason      "+string(tt.code)+": ") {
					t.Errorf("status:\n%s", out)
				}
			})
		}
	}
}

// TestFullRunDirectory: without room for the journal or the log nothing is extended and nothing is open.
func TestFullRunDirectory(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	if err := os.Mkdir(m.path("run"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("none", m.path("run"), "tmpfs", 0, "size=16k"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("SKIPPED: mounting needs root: ", err)
	}
	t.Cleanup(func() { syscall.Unmount(m.path("run"), syscall.MNT_DETACH) })
	m.boot()
	m.agentUp()
	_ = os.WriteFile(m.path("run/ballast"), make([]byte, 1<<20), 0o600)
	m.setPolicy(podPolicy, binding.CodeLogFailed)
	m.sandbox(binding.CodeLogFailed)
	m.extendedBy()
	if err := os.Remove(m.path("run/ballast")); err != nil {
		t.Fatal(err)
	}
	m.setPolicy(podPolicy, "")
	m.sandbox("")
	m.extendedBy(sum256(podPolicy))
}

// BenchmarkSetPolicy compares activation with and without a TPM behind it, with the journal and the event log in memory, as
// in a guest's /run.
func BenchmarkSetPolicy(b *testing.B) {
	const perBoot = 10 // the event log grows with each
	for _, with := range []bool{false, true} {
		b.Run(fmt.Sprintf("swtpm=%t", with), func(b *testing.B) {
			var d *policyDaemon
			for i := range b.N {
				if i%perBoot == 0 {
					b.StopTimer()
					m := newMachine(b, hostdatatest.Guest{})
					run, err := os.MkdirTemp("/dev/shm", "pd")
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { os.RemoveAll(run) })
					m.conf.Log.Events = run + "/measure.jsonseq"
					m.conf.Binding.VTPM.Device = m.path("none")
					if with {
						m.withTPM("asserted")
					}
					m.conf.Binding.PolicyUpdate = "extend"
					if d, err = newDaemon(b.Context(), m.conf, m.guest, slog.New(slog.DiscardHandler)); err != nil {
						b.Fatal(err)
					}
					b.Cleanup(d.close)
					b.StartTimer()
				}
				if err := d.chain.SetPolicy(b.Context(), fmt.Appendf(nil, "%sdefault SetPolicyRequest := true\n# %d\n", podPolicy, i)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestVerifyJudgesWhoRuledBefore: under policy_update = extend a host's policy that ruled first may have let containers run, which
// a verifier of the owner's policy must learn.
func TestVerifyJudgesWhoRuledBefore(t *testing.T) {
	m := newMachine(t, hostdatatest.Guest{}).withTPM("asserted")
	m.conf.Binding.PolicyUpdate = "extend"
	m.boot()
	const rogue = allowingDefault + "# the host's own policy\n"
	m.setPolicy(rogue, "")
	m.setPolicy(podPolicy, "")
	m.write("policy.rego", podPolicy)
	m.write("rogue.rego", rogue)
	m.write("other.rego", otherPolicy)
	m.tool("tpm2_createek", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub")
	m.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
	m.tool("tpm2_quote", "-c", "ak.ctx", "-l", "sha256:8", "-q", "00112233", "-m", "q.msg", "-s", "q.sig", "-g", "sha256")
	m.write("log", m.read("run/measure.jsonseq"))
	for _, tt := range []struct {
		name  string
		exit  int
		flags []string
	}{
		{"nothing is said of it", 3, nil},
		{"it may not have ruled", 1, []string{"--earlier", "other.rego"}},
		{"it may have ruled", 0, []string{"--earlier", "other.rego", "--earlier", "rogue.rego"}},
		{"it may have ruled, by its digest", 0, []string{"--earlier-digest", fmt.Sprintf("%x", sum256(rogue))}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m.ctl(tt.exit, append([]string{"verify", "tpm", "--quote", "q.msg", "--signature", "q.sig", "--ak", "ak.pub", "--trust-ak", "--log", "log",
				"--policy", "policy.rego", "--nonce", "00112233"}, tt.flags...)...)
		})
	}
}
