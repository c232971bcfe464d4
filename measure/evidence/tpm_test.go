// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"portcullis/internal/measuretest"
	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/evidence"
)

const tpmNonce = "00112233445566778899"

// attester is an swtpm whose PCR 8 and log were made by package measure, and whose quotes by tpm2-tools.
type attester struct {
	t   testing.TB
	tpm *measuretest.SWTPM
	dir string
}

func newAttester(t testing.TB, akAlg, scheme string, texts ...string) attester {
	t.Helper()
	s, err := measuretest.Start()
	if err != nil {
		skip(t, err)
	}
	t.Cleanup(func() { s.Close() })
	a := attester{t, s, t.TempDir()}
	r, err := measure.New(measure.Config{Device: s.Device(), PCR: 8, Log: filepath.Join(a.dir, "log")})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range texts {
		e := measure.Event{Type: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", Digest: bound(text).Digest, Len: int64(len(text))}
		if _, err := r.Update(t.Context(), e); err != nil {
			t.Fatal(err)
		}
	}
	a.tool("tpm2_createek", "-G", "ecc", "-c", "ek.ctx", "-u", "ek.pub")
	a.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", akAlg, "-g", "sha256", "-s", scheme, "-u", "ak.pub")
	a.tool("tpm2_readpublic", "-c", "ak.ctx", "-f", "pem", "-o", "ak.pem")
	return a
}

// skip ends a test for want of a tool; where CI is set that is a failure.
func skip(t testing.TB, err error) {
	t.Helper()
	if !errors.Is(err, measuretest.ErrMissing) || os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	t.Skip("SKIPPED: ", err)
}

func (a attester) tool(name string, args ...string) {
	a.t.Helper()
	if _, err := a.tpm.Tool(a.dir, name, args...); err != nil {
		skip(a.t, err)
	}
	for _, what := range []string{"-t", "-l"} {
		if _, err := a.tpm.Tool(a.dir, "tpm2_flushcontext", what); err != nil {
			a.t.Fatal(err)
		}
	}
}

func (a attester) file(name string) []byte {
	a.t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, name))
	if err != nil {
		a.t.Fatal(err)
	}
	return b
}

// quote has tpm2_quote quote a selection; more is added to its arguments.
func (a attester) quote(selection string, more ...string) evidence.TPM {
	a.t.Helper()
	a.tool("tpm2_quote", append([]string{"-c", "ak.ctx", "-l", selection, "-q", tpmNonce, "-m", "q.msg", "-s", "q.sig", "-o", "q.pcrs", "-g", "sha256"}, more...)...)
	nonce, _ := hex.DecodeString(tpmNonce)
	return evidence.TPM{Quote: a.file("q.msg"), Signature: a.file("q.sig"), PCRs: a.file("q.pcrs"), AK: a.file("ak.pub"),
		Log: a.file("log"), Nonce: nonce, PCR: 8, Bound: bound(text)}
}

func TestTPM(t *testing.T) {
	a := newAttester(t, "ecc", "ecdsa", text)
	stranger := newAttester(t, "ecc", "ecdsa", text)
	good := a.quote("sha256:8")
	wide := a.quote("sha256:0,8,9+sha384:8")
	values := a.quote("sha256:7,8", "-F", "values")
	sha384 := a.quote("sha384:8")
	strange := stranger.quote("sha256:8")
	type change func(*evidence.TPM, *evidence.Options)
	tests := []struct {
		name    string
		change  change
		exit    int
		check   string
		verdict evidence.Verdict
	}{
		{"quote of tpm2-tools with log", func(*evidence.TPM, *evidence.Options) {}, 0, "policy", evidence.Pass},
		{"without PCR values", func(e *evidence.TPM, _ *evidence.Options) { e.PCRs = nil }, 0, "event-log", evidence.Pass},
		{"without log", func(e *evidence.TPM, _ *evidence.Options) { e.Log = nil }, 0, "policy", evidence.Pass},
		{"key as PEM", func(e *evidence.TPM, _ *evidence.Options) { e.AK = a.file("ak.pem") }, 0, "signature", evidence.Pass},
		{"key as TPMT_PUBLIC", func(e *evidence.TPM, _ *evidence.Options) { e.AK = e.AK[2:] }, 0, "signature", evidence.Pass},
		{"key of unknown origin", func(_ *evidence.TPM, o *evidence.Options) { o.TrustAK = false }, 3, "ak", evidence.Unknown},
		{"more PCRs quoted, with their values", func(e *evidence.TPM, _ *evidence.Options) { *e = wide }, 0, "policy", evidence.Pass},
		{"more PCRs quoted, values joined", func(e *evidence.TPM, _ *evidence.Options) { *e = values }, 0, "policy", evidence.Pass},
		{"more PCRs quoted, values missing", func(e *evidence.TPM, _ *evidence.Options) { *e = wide; e.PCRs = nil }, 3, "event-log", evidence.Unknown},
		{"more PCRs quoted, values of another quote", func(e *evidence.TPM, _ *evidence.Options) { *e = wide; e.PCRs = good.PCRs }, 1, "pcrs", evidence.Fail},
		{"PCR values altered", func(e *evidence.TPM, _ *evidence.Options) { e.PCRs = flip(e.PCRs, 150) }, 1, "pcrs", evidence.Fail},
		{"PCR file cut", func(e *evidence.TPM, _ *evidence.Options) { e.PCRs = e.PCRs[:200] }, 1, "pcrs", evidence.Fail},
		{"another bank quoted", func(e *evidence.TPM, _ *evidence.Options) { *e = sha384 }, 1, "pcrs", evidence.Fail},
		{"another PCR asked for", func(e *evidence.TPM, _ *evidence.Options) { e.PCR = 9 }, 1, "pcrs", evidence.Fail},
		{"another policy", func(e *evidence.TPM, _ *evidence.Options) { e.Bound = bound(text + "\n") }, 1, "policy", evidence.Fail},
		{"another policy without log", func(e *evidence.TPM, _ *evidence.Options) { e.Bound, e.Log = bound(text+"\n"), nil }, 1, "policy", evidence.Fail},
		{"another nonce", func(e *evidence.TPM, _ *evidence.Options) { e.Nonce = flip(e.Nonce, 0) }, 1, "nonce", evidence.Fail},
		{"a nonce that is only a prefix", func(e *evidence.TPM, _ *evidence.Options) { e.Nonce = e.Nonce[:4] }, 1, "nonce", evidence.Fail},
		{"a longer nonce", func(e *evidence.TPM, _ *evidence.Options) { e.Nonce = append(bytes.Clone(e.Nonce), 0) }, 1, "nonce", evidence.Fail},
		{"no nonce", func(e *evidence.TPM, _ *evidence.Options) { e.Nonce = nil }, 3, "nonce", evidence.Unknown},
		{"log of another policy, well made", func(e *evidence.TPM, _ *evidence.Options) {
			e.Log = newAttester(t, "ecc", "ecdsa", text+"\n").file("log")
			e.Bound = bound(text + "\n")
		}, 1, "event-log", evidence.Fail},
		{"log with a byte changed", func(e *evidence.TPM, _ *evidence.Options) { e.Log = flip(e.Log, 60) }, 1, "event-log", evidence.Fail},
		{"log with its event left out", func(e *evidence.TPM, _ *evidence.Options) { e.Log = []byte{} }, 1, "event-log", evidence.Fail},
		{"log cut", func(e *evidence.TPM, _ *evidence.Options) { e.Log = e.Log[:len(e.Log)-1] }, 1, "event-log", evidence.Fail},
		{"log with its event twice", func(e *evidence.TPM, _ *evidence.Options) { e.Log = append(bytes.Clone(e.Log), e.Log...) }, 1, "event-log", evidence.Fail},
		{"signature altered", func(e *evidence.TPM, _ *evidence.Options) { e.Signature = flip(e.Signature, 20) }, 1, "signature", evidence.Fail},
		{"signature with bytes behind", func(e *evidence.TPM, _ *evidence.Options) { e.Signature = append(bytes.Clone(e.Signature), 0) }, 1, "signature", evidence.Fail},
		{"quote altered", func(e *evidence.TPM, _ *evidence.Options) { e.Quote = flip(e.Quote, len(e.Quote)-1) }, 1, "signature", evidence.Fail},
		{"quote without the TPM's magic", func(e *evidence.TPM, _ *evidence.Options) { e.Quote = flip(e.Quote, 0) }, 1, "format", evidence.Fail},
		{"quote with bytes behind", func(e *evidence.TPM, _ *evidence.Options) { e.Quote = append(bytes.Clone(e.Quote), 0) }, 1, "format", evidence.Fail},
		{"another TPM's key", func(e *evidence.TPM, _ *evidence.Options) { e.AK = strange.AK }, 1, "signature", evidence.Fail},
		{"another TPM's quote", func(e *evidence.TPM, _ *evidence.Options) { e.Quote, e.Signature = strange.Quote, strange.Signature }, 1, "signature", evidence.Fail},
		{"key is garbage", func(e *evidence.TPM, _ *evidence.Options) { e.AK = []byte("key") }, 1, "signature", evidence.Fail},
		{"sha384 digest", func(e *evidence.TPM, _ *evidence.Options) {
			e.Bound = evidence.Bound{Alg: "sha384", Digest: make([]byte, 48)}
		}, 3, "policy", evidence.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e, o := good, evidence.Options{TrustAK: true}
			tt.change(&e, &o)
			r := evidence.VerifyTPM(t.Context(), e, o)
			expect(t, r, tt.exit, tt.check, tt.verdict)
			if c := find(r, "ak"); (c.Verdict == evidence.Unknown) != (c.Reason == evidence.AKUnbound) {
				t.Errorf("check ak is %+v", c)
			}
			if _, err := json.Marshal(r); err != nil {
				t.Error(err)
			}
		})
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

func TestTPMKeys(t *testing.T) {
	for _, key := range []struct{ alg, scheme string }{{"rsa", "rsassa"}, {"rsa", "rsapss"}, {"ecc", "ecdsa"}} {
		t.Run(key.scheme, func(t *testing.T) {
			a := newAttester(t, key.alg, key.scheme, text)
			expect(t, evidence.VerifyTPM(t.Context(), a.quote("sha256:8", "--scheme", key.scheme), evidence.Options{TrustAK: true}), 0, "signature", evidence.Pass)
		})
	}
}

func TestTPMUpdatesAreInTheLog(t *testing.T) {
	a := newAttester(t, "ecc", "ecdsa", "first", text)
	e, o := a.quote("sha256:8"), evidence.Options{TrustAK: true}
	e.Earlier = [][]byte{bound("first").Digest}
	expect(t, evidence.VerifyTPM(t.Context(), e, o), 0, "policy", evidence.Pass)
	e.Bound = bound("first") // no longer the policy in force
	expect(t, evidence.VerifyTPM(t.Context(), e, o), 1, "policy", evidence.Fail)
	e.Log, e.Bound = nil, bound(text)
	expect(t, evidence.VerifyTPM(t.Context(), e, o), 1, "policy", evidence.Fail)
}

// TestHistory: a policy that ruled before the right one may have let containers run that still do.
func TestHistory(t *testing.T) {
	last := func(texts ...string) evidence.TPM { return newAttester(t, "ecc", "ecdsa", texts...).quote("sha256:8") }
	digests := func(texts ...string) (list [][]byte) {
		for _, text := range texts {
			list = append(list, bound(text).Digest)
		}
		return list
	}
	rogue, twice, longer := last("rogue", text), last(text, "rogue", text), last("first", "rogue", "second", text)
	tests := []struct {
		name    string
		e       evidence.TPM
		earlier [][]byte
		exit    int
		verdict evidence.Verdict
	}{
		{"no other", last(text), nil, 0, evidence.Pass},
		{"one that the verifier says nothing of", rogue, nil, 3, evidence.Unknown},
		{"one that may have ruled", rogue, digests("rogue"), 0, evidence.Pass},
		{"a foreign one", rogue, digests("first"), 1, evidence.Fail},
		{"a foreign one between", twice, digests("first"), 1, evidence.Fail},
		{"one between that the verifier says nothing of", twice, nil, 3, evidence.Unknown},
		{"a foreign one among others", longer, digests("first", "second"), 1, evidence.Fail},
		{"all of them known", longer, digests("second", "rogue", "first"), 0, evidence.Pass},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.e.Earlier = tt.earlier
			expect(t, evidence.VerifyTPM(t.Context(), tt.e, evidence.Options{TrustAK: true}), tt.exit, "history", tt.verdict)
		})
	}
}

// TestLogWithAnEventOfNoRegister: the register vouches for no such event, so a host could write the right policy's digest there,
// behind the event of the policy that it measured.
func TestLogWithAnEventOfNoRegister(t *testing.T) {
	e := newAttester(t, "ecc", "ecdsa", "rogue").quote("sha256:8")
	yes, records := true, must(eventlog.Decode(e.Log))
	records = append(records, eventlog.Record{Num: 1, ContentType: eventlog.ContentType,
		Digests: []eventlog.Digest{{HashAlg: "sha256", Digest: bound(text).Digest}},
		Content: eventlog.Content{EventType: eventlog.Policy, Binding: eventlog.Policy, Alg: "sha256", SHA256: bound(text).Digest, Seq: 2,
			Field: "hostdata", Value: bound(text).Digest, Match: &yes}})
	e.Log = nil
	for _, r := range records {
		e.Log = append(e.Log, must(eventlog.Encode(r))...)
	}
	e.Earlier = [][]byte{bound("rogue").Digest}
	expect(t, evidence.VerifyTPM(t.Context(), e, evidence.Options{TrustAK: true}), 1, "event-log", evidence.Fail)
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestBootRegisters: what was booted is compared where the verifier says what it must be.
func TestBootRegisters(t *testing.T) {
	a := newAttester(t, "ecc", "ecdsa", text)
	wide, narrow := a.quote("sha256:0,8,9"), a.quote("sha256:8")
	zero, other := [][]byte{make([]byte, 32)}, [][]byte{bytes.Repeat([]byte{1}, 32)}
	noValues := wide
	noValues.PCRs, noValues.Log = nil, nil
	tests := []struct {
		name    string
		e       evidence.TPM
		pcrs    map[uint32][][]byte
		exit    int
		verdict evidence.Verdict
	}{
		{"as they must be", wide, map[uint32][][]byte{9: zero}, 0, evidence.Pass},
		{"another boot", wide, map[uint32][][]byte{0: zero, 9: other}, 1, evidence.Fail},
		{"not quoted", narrow, map[uint32][][]byte{9: zero}, 3, evidence.Unknown},
		{"values not given", noValues, map[uint32][][]byte{9: zero}, 3, evidence.Unknown},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := evidence.Options{TrustAK: true, Reference: evidence.Reference{PCRs: tt.pcrs}}
			expect(t, evidence.VerifyTPM(t.Context(), tt.e, o), tt.exit, "pcr9", tt.verdict)
		})
	}
	r := evidence.VerifyTPM(t.Context(), narrow, evidence.Options{TrustAK: true})
	if !slices.Equal(r.NotChecked, []string{"ak", "boot"}) {
		t.Errorf("not checked: %q", r.NotChecked)
	}
	if got := earPod(t, r); got.Vector["executables"] != 0 || got.Vector["configuration"] != 2 || !slices.Equal(got.NotChecked, r.NotChecked) {
		t.Errorf("the token says of what was not compared: %+v", got)
	}
	r = evidence.VerifyTPM(t.Context(), wide, evidence.Options{TrustAK: true, Reference: evidence.Reference{PCRs: map[uint32][][]byte{9: zero}}})
	if got := earPod(t, r); got.Vector["executables"] != 2 {
		t.Errorf("the token says of what was compared: %+v", got)
	}
}

// earClaims are what a token says of the pod.
type earClaims struct {
	Vector     map[string]int `json:"ear.trustworthiness-vector"`
	NotChecked []string       `json:"ear.portcullis.not-checked"`
}

// earPod reads the unsigned token of a result.
func earPod(t *testing.T, r evidence.Result) earClaims {
	t.Helper()
	token, err := r.EAR(evidence.EAR{})
	if err != nil {
		t.Fatal(err)
	}
	body, err := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[1])
	var claims struct {
		Submods struct{ Pod earClaims }
	}
	if err == nil {
		err = json.Unmarshal(body, &claims)
	}
	if err != nil {
		t.Fatal(err)
	}
	return claims.Submods.Pod
}

// TestUnrestrictedKey: such a key signs any bytes, a forged quote among them.
func TestUnrestrictedKey(t *testing.T) {
	a := newAttester(t, "ecc", "ecdsa", text)
	e := a.quote("sha256:8")
	a.tool("tpm2_createprimary", "-C", "o", "-G", "ecc:ecdsa-sha256", "-a", "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|sign", "-c", "free.ctx")
	a.tool("tpm2_readpublic", "-c", "free.ctx", "-o", "free.pub")
	if err := os.WriteFile(filepath.Join(a.dir, "forged"), e.Quote, 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(e.Quote)
	if err := os.WriteFile(filepath.Join(a.dir, "forged.digest"), sum[:], 0o600); err != nil {
		t.Fatal(err)
	}
	a.tool("tpm2_sign", "-c", "free.ctx", "-g", "sha256", "-d", "-o", "forged.sig", "forged.digest")
	e.Signature, e.AK = a.file("forged.sig"), a.file("free.pub")
	r := evidence.VerifyTPM(t.Context(), e, evidence.Options{TrustAK: true})
	expect(t, r, 1, "signature", evidence.Fail)
	if d := find(r, "signature").Detail; !strings.Contains(d, "restricted") {
		t.Errorf("refused for another reason: %s", d)
	}
}
