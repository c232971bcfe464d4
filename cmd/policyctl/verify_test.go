// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	stest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-tdx-guest/testing/testdata"

	"portcullis/engine/binding"
	"portcullis/measure/evidence"
)

const policyText = "package agent_policy\n"

// desk is a verifier's directory.
type desk struct {
	t   testing.TB
	dir string
}

func (d desk) write(name string, content []byte) string {
	d.t.Helper()
	path := filepath.Join(d.dir, name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		d.t.Fatal(err)
	}
	return path
}

// policyctl runs the tool and requires its exit code and an empty standard error.
func (d desk) policyctl(exit int, args ...string) string {
	d.t.Helper()
	var out, errs bytes.Buffer
	code := run(context.Background(), args, stdio{strings.NewReader(""), &out, &errs})
	if code != exit || errs.Len() > 0 {
		d.t.Errorf("policyctl %q: exit code %d, want %d\n%s%s", args, code, exit, out.String(), errs.String())
	}
	return out.String()
}

// verdicts are the checks of a JSON result.
func (d desk) verdicts(text string) map[string]string {
	d.t.Helper()
	var r struct {
		Checks []struct{ Name, Verdict string }
	}
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		d.t.Fatalf("%v: %s", err, text)
	}
	m := map[string]string{}
	for _, c := range r.Checks {
		m[c.Name] = c.Verdict
	}
	return m
}

// snpSigner is the library's test chain in AMD's place.
type snpSigner struct {
	*stest.AmdSigner
	t testing.TB
}

// snpMeasurement is of the guests whose reports are made here.
var snpMeasurement = bytes.Repeat([]byte{0x4d}, 48)

func newSNPSigner(t testing.TB) snpSigner {
	t.Helper()
	past := time.Now().Add(-time.Hour)
	s, err := (&stest.AmdSignerBuilder{Keys: stest.DefaultAmdKeys(), ProductName: "Milan-B1", ArkCreationTime: past, AskCreationTime: past,
		AsvkCreationTime: past, VcekCreationTime: past, VlekCreationTime: past, CSPID: "test"}).TestOnlyCertChain()
	if err != nil {
		t.Fatal(err)
	}
	return snpSigner{s, t}
}

// report returns a signed report of a guest that binds policyText. change is applied before signing.
func (s snpSigner) report(nonce []byte, change func([]byte)) []byte {
	s.t.Helper()
	data := make([]byte, 64)
	copy(data, nonce)
	raw := stest.CreateRawReport(&stest.TestReportOptions{ReportData: data, Version: 3, FMS: 0x00A00F11,
		SignerInfo: abi.SignerInfo{SigningKey: abi.VcekReportSigner}})
	r := raw[:abi.ReportSize]
	r[0x0A] &^= 0x08 // POLICY.DEBUG
	copy(r[0x90:0xC0], snpMeasurement)
	digest := sha256.Sum256([]byte(policyText))
	copy(r[0xC0:0xE0], digest[:])
	if change != nil {
		change(r)
	}
	x, y, err := s.Sign(abi.SignedComponent(r))
	if err != nil {
		s.t.Fatal(err)
	}
	if err := abi.SetSignature(x, y, r); err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s snpSigner) roots() []byte { return append(certificate(s.Ask.Raw), certificate(s.Ark.Raw)...) }

func certificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestVerifySNP over a report that the library's test chain signed.
func TestVerifySNP(t *testing.T) {
	d := desk{t, t.TempDir()}
	signer, nonce := newSNPSigner(t), bytes.Repeat([]byte{7}, 64)
	report := func(change func([]byte)) []byte { return signer.report(nonce, change) }
	good := d.write("good", report(nil))
	altered := report(nil)
	altered[0xC0] ^= 1
	flags := []string{"verify", "snp", "--json", "--roots", d.write("roots", signer.roots()),
		"--product", "Milan"}
	certs := []string{"--certs", d.write("vcek", certificate(signer.Vcek.Raw))}
	policy := []string{"--policy", d.write("policy.rego", []byte(policyText))}
	launched := []string{"--measurement", hex.EncodeToString(snpMeasurement)}
	fresh := append([]string{"--nonce", hex.EncodeToString(nonce)}, launched...)
	signed := d.write("signed", report(func(r []byte) { copy(r[0xE0:0x110], nonce) }))
	idKey := []string{"--id-key", hex.EncodeToString(nonce[:48])}
	references := func(text string) []string {
		return []string{"--reference", d.write("r"+hex.EncodeToString([]byte(text))[:16], []byte(text))}
	}
	tests := []struct {
		name    string
		args    [][]string
		exit    int
		check   string
		verdict string
	}{
		{"signed", [][]string{{"--report", good}, certs, policy, fresh}, 0, "hostdata", "pass"},
		{"altered", [][]string{{"--report", d.write("altered", altered)}, certs, policy, fresh}, 1, "signature", "fail"},
		{"without certificate", [][]string{{"--report", good}, policy, fresh}, 3, "signature", "unknown"},
		{"without nonce", [][]string{{"--report", good}, certs, policy, launched}, 3, "nonce", "unknown"},
		{"another nonce", [][]string{{"--report", good}, certs, policy, launched, {"--nonce", "00"}}, 1, "nonce", "fail"},
		{"another policy", [][]string{{"--report", good}, certs, {"--policy", d.write("other", []byte(policyText+"\n"))}, fresh}, 1, "hostdata", "fail"},
		{"without measurement", [][]string{{"--report", good}, certs, policy, fresh[:2]}, 3, "measurement", "unknown"},
		{"another measurement", [][]string{{"--report", good}, certs, policy, fresh[:2], {"--measurement", strings.Repeat("00", 48)}}, 1, "measurement", "fail"},
		{"one measurement of two", [][]string{{"--report", good}, certs, policy, fresh, {"--measurement", strings.Repeat("00", 48)}}, 0, "measurement", "pass"},
		{"reference values", [][]string{{"--report", good}, certs, policy, fresh[:2], references(`{"snp_launch_measurement": ["` + launched[1] + `"], "tdvf": ["x"]}`)}, 0, "measurement", "pass"},
		{"reference values of another guest", [][]string{{"--report", good}, certs, policy, fresh[:2], references(`{ "snp_launch_measurement": "` + strings.Repeat("00", 48) + `"}`)}, 1, "measurement", "fail"},
		{"signer", [][]string{{"--report", signed}, certs, policy, fresh[:2], idKey}, 0, "id-key", "pass"},
		{"another signer", [][]string{{"--report", good}, certs, policy, fresh[:2], idKey}, 1, "id-key", "fail"},
		{"debug", [][]string{{"--report", d.write("debug", report(func(r []byte) { r[0x0A] |= 0x08 }))}, certs, policy, fresh}, 1, "debug", "fail"},
		{"debug allowed", [][]string{{"--report", d.write("debug", report(func(r []byte) { r[0x0A] |= 0x08 }))}, certs, policy, fresh, {"--allow-debug"}}, 0, "debug", "pass"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			args := flags
			for _, a := range tt.args {
				args = append(args[:len(args):len(args)], a...)
			}
			if got := d.verdicts(d.policyctl(tt.exit, args...))[tt.check]; got != tt.verdict {
				t.Errorf("check %s: %s, want %s", tt.check, got, tt.verdict)
			}
		})
	}
}

// TestVerifyTDX over the library's genuine quote of a guest that binds nothing.
func TestVerifyTDX(t *testing.T) {
	d := desk{t, t.TempDir()}
	out := d.policyctl(1, "verify", "tdx", "--quote", d.write("quote", testdata.RawQuote), "--policy", d.write("p", []byte(policyText)),
		"--nonce", hex.EncodeToString(testdata.RawQuote[0x30+520:][:64]), "--at", "2023-07-01T01:00:00Z")
	want := `pass    format
pass    signature
pass    debug
pass    nonce
fail    mrconfigid    got ` + strings.Repeat("0", 96) + `, want 45148e88381b22b43595cc1eaf2fadfd3f93998dbbb75bd4f3d69b641fe6153b` + strings.Repeat("0", 32) + `
unknown measurement   not-compared: what was launched was not compared; give --measurement (MRTD) or --reference
unknown rtmr1         not-compared: kernel, command line and initrd were not compared; give --rtmr 1=HEX --rtmr 2=HEX or --reference
unknown rtmr2         not-compared: kernel, command line and initrd were not compared; give --rtmr 1=HEX --rtmr 2=HEX or --reference
note    revocation and TCB status were not checked, which needs the network
not checked: measurement, rtmr1, rtmr2, revocation, tcb-status
verdict fail
`
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
}

// TestStatusText is what an operator sees, for what a policyd may say.
func TestStatusText(t *testing.T) {
	yes := true
	s := binding.Status{
		Facts:  binding.Facts{Version: "v1.2", Rules: []string{"sha256:55", "sha256:66"}, Mode: "required", Backend: "vtpm", Binding: "initdata", Log: "/run/portcullis/measure.jsonseq"},
		State:  binding.StateActive,
		Policy: strings.Repeat("1", 64), Size: 21, Initdata: &binding.DigestStatus{Alg: "sha256", Digest: strings.Repeat("2", 64)},
		Register: &binding.RegisterStatus{Name: "pcr8", Device: "/dev/tpmrm0", State: "measured", Events: 1,
			Values: map[string]string{"sha256": strings.Repeat("3", 64), "sha1": strings.Repeat("4", 40)}},
		Generation: 2, Ran: true, PodComplete: &yes,
	}
	d := desk{t, t.TempDir()}
	out := d.policyctl(0, "status", "--socket", d.statusSocket(s))
	want := `state       active
mode        required
backend     vtpm
binding     initdata
policy      sha256 1111111111111111111111111111111111111111111111111111111111111111 (21 bytes)
initdata    sha256 2222222222222222222222222222222222222222222222222222222222222222
register    pcr8 of /dev/tpmrm0, measured, 1 event
            sha1 4444444444444444444444444444444444444444
            sha256 3333333333333333333333333333333333333333333333333333333333333333
event log   /run/portcullis/measure.jsonseq
version     v1.2
rules       sha256:55
rules       sha256:66
generation  2
requests    0 allowed, 0 denied
running     yes
pod         complete
`
	if out != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	s.State, s.Code, s.Reason = binding.StateDenied, binding.CodeFieldZero, "nothing was bound"
	out = d.policyctl(1, "status", "--socket", d.statusSocket(s))
	if !strings.HasPrefix(out, "state       denied\nreason      field-zero: nothing was bound\n") {
		t.Errorf("denied:\n%s", out)
	}
}

// statusSocket answers one connection with s.
func (d desk) statusSocket(s binding.Status) string {
	d.t.Helper()
	path := filepath.Join(d.t.TempDir(), "status.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		d.t.Fatal(err)
	}
	text, err := json.Marshal(s)
	if err != nil {
		d.t.Fatal(err)
	}
	go func() {
		defer l.Close()
		if conn, err := l.Accept(); err == nil {
			conn.Write(text)
			conn.Close()
		}
	}()
	return path
}

// TestNothingOfTheEvidenceReadsAsALineOfOurs: names in a log are the host's, before anybody vouches for it.
func TestNothingOfTheEvidenceReadsAsALineOfOurs(t *testing.T) {
	const forged = "web\nverdict pass\r\x1b[2J"
	var out bytes.Buffer
	printResult(&out, evidence.Result{
		Verdict: evidence.Fail, Checks: []evidence.Check{{Name: "pod-exec", Verdict: evidence.Fail, Detail: forged}}, Notes: []string{forged},
		Pod: &evidence.PodResult{Containers: []evidence.ContainerRun{{Name: forged, Image: forged, ID: forged}},
			Execs: []evidence.ExecRun{{Container: forged, Command: forged}, {Container: forged, Digest: forged}}},
	})
	if strings.Contains(out.String(), "\nverdict pass") || strings.ContainsAny(out.String(), "\r\x1b") || strings.Count(out.String(), "\n") != 7 {
		t.Errorf("printed:\n%q", &out)
	}
}
