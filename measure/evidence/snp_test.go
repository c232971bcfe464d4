// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	stest "github.com/google/go-sev-guest/testing"
	"github.com/google/go-sev-guest/verify/trust"
	"github.com/google/go-tdx-guest/testing/testdata"

	"portcullis/measure/evidence"
)

// amd is a signer in AMD's place: the library's test-only chain of ARK, ASK and VCEK.
type amd struct {
	signer *stest.AmdSigner
	opts   evidence.Options
}

// fms is a Milan processor, family 19h model 01h stepping 1.
const fms = 0x00A00F11

// newAMD changes the library's fixed keys as asked.
func newAMD(t testing.TB, change ...func(*stest.AmdKeys)) amd {
	t.Helper()
	now, keys := time.Now(), stest.DefaultAmdKeys()
	for _, c := range change {
		c(keys)
	}
	past := now.Add(-time.Hour)
	b := &stest.AmdSignerBuilder{Keys: keys, ProductName: "Milan-B1", ArkCreationTime: past, AskCreationTime: past,
		AsvkCreationTime: past, VcekCreationTime: past, VlekCreationTime: past, CSPID: "test"}
	s, err := b.TestOnlyCertChain()
	if err != nil {
		t.Fatal(err)
	}
	return amd{s, evidence.Options{Now: now, Reference: evidence.Reference{Measurements: [][]byte{launched}}, SNPRoots: map[string][]*trust.AMDRootCerts{"Milan": {{
		ProductLine: "Milan", ProductCerts: &trust.ProductCerts{Ark: s.Ark, Ask: s.Ask, Asvk: s.Asvk}}}}}}
}

// launched is the measurement of the guests whose reports are made here.
var launched = bytes.Repeat([]byte{0x4d}, 48)

// report returns a signed report of a guest that is not debuggable. change is applied before signing.
func (a amd) report(t testing.TB, reportData, hostData []byte, change func([]byte)) []byte {
	t.Helper()
	data := make([]byte, 64)
	copy(data, reportData)
	buf := stest.CreateRawReport(&stest.TestReportOptions{ReportData: data, Version: 3, FMS: fms,
		SignerInfo: abi.SignerInfo{SigningKey: abi.VcekReportSigner}})
	raw := buf[:abi.ReportSize]
	raw[0x0A] &^= 0x0C // POLICY.DEBUG and MIGRATE_MA
	copy(raw[0x90:0xC0], launched)
	copy(raw[0xC0:0xE0], hostData)
	if change != nil {
		change(raw)
	}
	r, s, err := a.signer.Sign(abi.SignedComponent(raw))
	if err != nil {
		t.Fatal(err)
	}
	if err := abi.SetSignature(r, s, raw); err != nil {
		t.Fatal(err)
	}
	return raw
}

func newECDSA(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 4096)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func (a amd) vcekPEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.signer.Vcek.Raw})
}

func bound(text string) evidence.Bound {
	d := sha256.Sum256([]byte(text))
	return evidence.Bound{Alg: "sha256", Digest: d[:]}
}

// find returns a check by name; the zero Check when it was not made.
func find(r evidence.Result, name string) evidence.Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return evidence.Check{}
}

// expect requires the exit code, and the verdict of one check.
func expect(t *testing.T, r evidence.Result, exit int, name string, verdict evidence.Verdict) {
	t.Helper()
	if r.ExitCode() != exit || find(r, name).Verdict != verdict {
		t.Errorf("exit code %d, check %q is %q; want %d, %q\n%+v", r.ExitCode(), name, find(r, name).Verdict, exit, verdict, r)
	}
}

const text = "package agent_policy\n"

func TestSNP(t *testing.T) {
	a, nonce := newAMD(t), []byte("fresh")
	otherChip := newAMD(t, func(k *stest.AmdKeys) { k.Vcek = newECDSA(t) })
	otherVendor := newAMD(t, func(k *stest.AmdKeys) { k.Ark, k.Ask = newRSA(t), newRSA(t) })
	digest := bound(text).Digest
	table, err := a.signer.CertTableBytes()
	if err != nil {
		t.Fatal(err)
	}
	signer := bytes.Repeat([]byte{0x1d}, 48)
	good := func() evidence.SNP {
		return evidence.SNP{Report: a.report(t, nonce, digest, nil), Certs: a.vcekPEM(), Nonce: nonce, Bound: bound(text)}
	}
	changed := func(at int) func(*evidence.SNP, *evidence.Options) {
		return func(e *evidence.SNP, _ *evidence.Options) { e.Report[at] ^= 1 }
	}
	tests := []struct {
		name    string
		change  func(*evidence.SNP, *evidence.Options)
		exit    int
		check   string
		verdict evidence.Verdict
	}{
		{"signed report of this policy", func(*evidence.SNP, *evidence.Options) {}, 0, "hostdata", evidence.Pass},
		{"certificate as DER", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = a.signer.Vcek.Raw }, 0, "signature", evidence.Pass},
		{"certificate table", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = table }, 0, "signature", evidence.Pass},
		{"another policy", func(e *evidence.SNP, _ *evidence.Options) { e.Bound = bound(text + "\n") }, 1, "hostdata", evidence.Fail},
		{"another nonce", func(e *evidence.SNP, _ *evidence.Options) { e.Nonce = []byte("stale") }, 1, "nonce", evidence.Fail},
		{"a nonce that is only a prefix", func(e *evidence.SNP, _ *evidence.Options) { e.Nonce = nonce[:4] }, 1, "nonce", evidence.Fail},
		{"a nonce too long", func(e *evidence.SNP, _ *evidence.Options) { e.Nonce = make([]byte, 65) }, 1, "nonce", evidence.Fail},
		{"no nonce", func(e *evidence.SNP, _ *evidence.Options) { e.Nonce = nil }, 3, "nonce", evidence.Unknown},
		{"host data altered in its first byte", changed(0xC0), 1, "signature", evidence.Fail},
		{"host data altered in its last byte", changed(0xDF), 1, "signature", evidence.Fail},
		{"measurement altered", changed(0x90), 1, "signature", evidence.Fail},
		{"signature altered", changed(0x2A0), 1, "signature", evidence.Fail},
		{"altered and of another policy says no", func(e *evidence.SNP, _ *evidence.Options) { e.Report[0xC0] ^= 1; e.Nonce = nil }, 1, "hostdata", evidence.Fail},
		{"certificate missing", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = nil }, 3, "signature", evidence.Unknown},
		{"certificate is garbage", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = []byte{0x30, 1, 2} }, 1, "signature", evidence.Fail},
		{"certificate table is garbage", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = []byte("x") }, 1, "signature", evidence.Fail},
		{"another chip's certificate", func(e *evidence.SNP, _ *evidence.Options) { e.Certs = otherChip.vcekPEM() }, 1, "signature", evidence.Fail},
		{"another vendor's roots", func(_ *evidence.SNP, o *evidence.Options) { o.SNPRoots = otherVendor.opts.SNPRoots }, 1, "signature", evidence.Fail},
		{"AMD's own roots", func(_ *evidence.SNP, o *evidence.Options) { o.SNPRoots = nil }, 1, "signature", evidence.Fail},
		{"certificate expired", func(_ *evidence.SNP, o *evidence.Options) { o.Now = time.Now().AddDate(40, 0, 0) }, 1, "signature", evidence.Fail},
		{"short report", func(e *evidence.SNP, _ *evidence.Options) { e.Report = e.Report[:abi.ReportSize-1] }, 1, "format", evidence.Fail},
		{"long report", func(e *evidence.SNP, _ *evidence.Options) { e.Report = append(e.Report, 0) }, 1, "format", evidence.Fail},
		{"version 6", func(e *evidence.SNP, _ *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { r[0] = 6 })
		}, 1, "format", evidence.Fail},
		{"debug guest", func(e *evidence.SNP, _ *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { r[0x0A] |= 0x08 })
		}, 1, "debug", evidence.Fail},
		{"guest that a migration agent may read", func(e *evidence.SNP, _ *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { r[0x0A] |= 0x04 })
		}, 1, "debug", evidence.Fail},
		{"debug guest allowed", func(e *evidence.SNP, o *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { r[0x0A] |= 0x08 })
			o.AllowDebug = true
		}, 0, "debug", evidence.Pass},
		{"host data zero", func(e *evidence.SNP, _ *evidence.Options) { e.Report = a.report(t, nonce, nil, nil) }, 1, "hostdata", evidence.Fail},
		{"digest missing", func(e *evidence.SNP, _ *evidence.Options) { e.Bound = evidence.Bound{} }, 3, "hostdata", evidence.Unknown},
		{"another measurement", func(e *evidence.SNP, _ *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { r[0x90] ^= 1 })
		}, 1, "measurement", evidence.Fail},
		{"measurement not compared", func(_ *evidence.SNP, o *evidence.Options) { o.Reference = evidence.Reference{} }, 3, "measurement", evidence.Unknown},
		{"one measurement of several", func(_ *evidence.SNP, o *evidence.Options) {
			o.Reference.Measurements = [][]byte{make([]byte, 48), launched}
		}, 0, "measurement", evidence.Pass},
		{"signer of the ID block", func(e *evidence.SNP, o *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { copy(r[0xE0:0x110], signer) })
			o.Reference = evidence.Reference{IDKeys: [][]byte{signer}}
		}, 0, "id-key", evidence.Pass},
		{"signer right, measurement wrong", func(e *evidence.SNP, o *evidence.Options) {
			e.Report = a.report(t, nonce, digest, func(r []byte) { copy(r[0xE0:0x110], signer) })
			o.Reference = evidence.Reference{IDKeys: [][]byte{signer}, Measurements: [][]byte{signer}}
		}, 1, "measurement", evidence.Fail},
		{"no ID block", func(_ *evidence.SNP, o *evidence.Options) {
			o.Reference = evidence.Reference{IDKeys: [][]byte{signer}}
		}, 1, "id-key", evidence.Fail},
		{"a zero ID key names nobody", func(_ *evidence.SNP, o *evidence.Options) {
			o.Reference = evidence.Reference{IDKeys: [][]byte{make([]byte, 48)}}
		}, 3, "measurement", evidence.Unknown},
		{"a policy that nobody may update", func(e *evidence.SNP, _ *evidence.Options) { e.Policy = []byte(noIssuers) }, 0, "hostdata", evidence.Pass},
		{"a policy that an issuer may have updated", func(e *evidence.SNP, _ *evidence.Options) { e.Policy = []byte(oneIssuer) }, 3, "fragments", evidence.Unknown},
		{"sha384 initdata is cut", func(e *evidence.SNP, _ *evidence.Options) {
			d := sha512.Sum384([]byte("initdata"))
			e.Report, e.Bound = a.report(t, nonce, d[:32], nil), evidence.Bound{Alg: "sha384", Digest: d[:]}
		}, 0, "hostdata", evidence.Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, o := good(), a.opts
			tt.change(&e, &o)
			expect(t, evidence.VerifySNP(t.Context(), e, o), tt.exit, tt.check, tt.verdict)
		})
	}
}

// TestSNPOfAnotherProcessorLine: what the library cannot read nobody knows to be wrong. The report and its chain are in the form of
// AMD's Turin processors, whose certificates and TCB differ from those before.
func TestSNPOfAnotherProcessorLine(t *testing.T) {
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	turin := func() evidence.SNP {
		return evidence.SNP{Report: read("snp-turin-report.bin"), Certs: read("snp-turin-vcek.pem"), Nonce: make([]byte, 64), Bound: bound(text)}
	}
	roots := trust.AMDRootCertsProduct("Turin")
	if err := roots.FromKDSCertBytes(read("snp-turin-roots.pem")); err != nil {
		t.Fatal(err)
	}
	a := newAMD(t)
	tests := []struct {
		name   string
		change func(*evidence.SNP)
		exit   int
	}{
		{"Turin", func(*evidence.SNP) {}, 3},
		{"Turin, by its certificate alone", func(e *evidence.SNP) { e.Report = version2(e.Report) }, 3},
		{"a line that comes later", func(e *evidence.SNP) { e.Report[0x188] ^= 0x40 }, 3},
		{"another policy is known to be wrong", func(e *evidence.SNP) { e.Bound = bound("other") }, 1},
		{"a report of Milan with Turin's certificate", func(e *evidence.SNP) {
			e.Report = a.report(t, nil, bound(text).Digest, nil)
		}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, o := turin(), a.opts
			o.SNPRoots = map[string][]*trust.AMDRootCerts{"Turin": {roots}, "Milan": a.opts.SNPRoots["Milan"]}
			o.Reference = evidence.Reference{Measurements: [][]byte{make([]byte, 48), launched}}
			tt.change(&e)
			r := evidence.VerifySNP(t.Context(), e, o)
			if r.ExitCode() != tt.exit {
				t.Errorf("exit code %d, want %d: %+v", r.ExitCode(), tt.exit, r)
			}
			if c := find(r, "signature"); tt.exit == 3 && (c.Verdict != evidence.Unknown || c.Reason != evidence.Unreadable) {
				t.Errorf("signature: %+v", c)
			}
		})
	}
}

// Policies that name no issuers and one.
const (
	noIssuers = "package agent_policy\n\nrules := \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n\npolicy_data := {}\n"
	oneIssuer = "package agent_policy\n\nrules := \"sha256:0000000000000000000000000000000000000000000000000000000000000000\"\n\npolicy_data := {\"issuers\":" +
		`[{"feed":"app","key":"MCowBQYDK2VwAyEAPV55OZwPT2q7jA2bvJ3eVIp3YrRnXJ7f6mTxNgfRFLM=","may":[{"path":"containers.web.exec"}],"minimum_svn":1}]}` + "\n"
)

// version2 makes the report one that does not say which processor made it.
func version2(raw []byte) []byte {
	raw = bytes.Clone(raw)
	raw[0] = 2
	clear(raw[0x188:0x18B])
	return raw
}

// TestNotChecked: what was not looked at has a name in the result.
func TestNotChecked(t *testing.T) {
	a := newAMD(t)
	e := evidence.SNP{Report: a.report(t, []byte("n"), bound(text).Digest, nil), Certs: a.vcekPEM(), Nonce: []byte("n"), Bound: bound(text)}
	r := evidence.VerifySNP(t.Context(), e, a.opts)
	if want := []string{"revocation", "tcb-status"}; !slices.Equal(r.NotChecked, want) {
		t.Errorf("not checked: %q, want %q", r.NotChecked, want)
	}
	o := a.opts
	o.AllowDebug, o.Reference.RTMRs, o.Reference.PCRs = true, map[int][][]byte{1: {launched}}, map[uint32][][]byte{4: {launched[:32]}}
	e.Report = a.report(t, []byte("n"), bound(text).Digest, func(r []byte) { r[0x0A] |= 0x08 })
	r = evidence.VerifySNP(t.Context(), e, o)
	if want := []string{"revocation", "tcb-status", "debug", "reference"}; !slices.Equal(r.NotChecked, want) || r.Verdict != evidence.Pass {
		t.Errorf("%s, not checked: %q, want %q", r.Verdict, r.NotChecked, want)
	}
	if note := r.Notes[len(r.Notes)-1]; !strings.HasSuffix(note, ": rtmr_1, pcr_4") {
		t.Errorf("of the reference values it says %q", note)
	}
	o = a.opts
	o.Reference = evidence.Reference{Ignored: []string{"tdvf"}}
	e.Nonce = nil
	r = evidence.VerifySNP(t.Context(), e, o)
	if want := []string{"nonce", "measurement", "revocation", "tcb-status", "reference"}; !slices.Equal(r.NotChecked, want) {
		t.Errorf("not checked: %q, want %q", r.NotChecked, want)
	}
}

// TestNotCheckedBehindASignatureThatDoesNotHold: what a signature would have to hold for is not looked at without it.
func TestNotCheckedBehindASignatureThatDoesNotHold(t *testing.T) {
	a := newAMD(t)
	report := a.report(t, []byte("n"), bound(text).Digest, nil)
	changed := bytes.Clone(report)
	changed[0x90] ^= 1 // of the measurement
	for name, e := range map[string]evidence.SNP{
		"no certificate": {Report: report}, "unreadable certificate": {Report: report, Certs: []byte("x")}, "changed report": {Report: changed, Certs: a.vcekPEM()},
	} {
		e.Bound, e.Nonce = bound(text), []byte("n")
		r := evidence.VerifySNP(t.Context(), e, a.opts)
		for _, want := range []string{"firmware", "revocation", "tcb-status"} {
			if r.Verdict == evidence.Pass || !slices.Contains(r.NotChecked, want) {
				t.Errorf("%s: %s, not checked: %q, without %s", name, r.Verdict, r.NotChecked, want)
			}
		}
	}
}

// TestLibrariesKeepQuiet: standard output is where results go, as JSON too.
func TestLibrariesKeepQuiet(t *testing.T) {
	if os.Getenv("PORTCULLIS_TEST_QUIET") == "" {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(exe, "-test.run=^TestLibrariesKeepQuiet$")
		cmd.Env = append(os.Environ(), "PORTCULLIS_TEST_QUIET=1")
		out, err := cmd.CombinedOutput()
		if err != nil || string(out) != "PASS\n" {
			t.Errorf("%v, and it says\n%s", err, out)
		}
		return
	}
	a := newAMD(t)
	o := a.opts
	o.Fetch, o.SNPGetter = true, stest.SimpleGetter(map[string][]byte{})
	e := evidence.SNP{Report: version2(a.report(t, nil, bound(text).Digest, nil)), Bound: bound(text)}
	evidence.VerifySNP(t.Context(), e, o)
	e.Certs = []byte(strings.Repeat("\x00", 24)) // a certificate table without entries
	evidence.VerifySNP(t.Context(), e, o)
	evidence.VerifyTDX(t.Context(), evidence.TDX{Quote: testdata.RawQuote, Bound: bound(text)}, evidence.Options{Now: quoteTime})
}

func TestSNPFetchesTheCertificate(t *testing.T) {
	a := newAMD(t)
	e := evidence.SNP{Report: a.report(t, []byte("n"), bound(text).Digest, nil), Nonce: []byte("n"), Bound: bound(text)}
	o := a.opts
	o.Fetch, o.SNPGetter = true, stest.SimpleGetter(map[string][]byte{})
	expect(t, evidence.VerifySNP(t.Context(), e, o), 3, "signature", evidence.Unknown)
}

// FuzzSNP: no report whose bytes differ from the signed ones passes.
func FuzzSNP(f *testing.F) {
	a := newAMD(f)
	good := a.report(f, []byte("n"), bound(text).Digest, nil)
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := evidence.VerifySNP(t.Context(), evidence.SNP{Report: raw, Certs: a.signer.Vcek.Raw, Nonce: []byte("n"), Bound: bound(text)}, a.opts)
		if r.ExitCode() == 0 && len(raw) >= 0x2A0 && !bytes.Equal(raw[:0x2A0], good[:0x2A0]) {
			t.Fatalf("accepted: %x", raw)
		}
	})
}
