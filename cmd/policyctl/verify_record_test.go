// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"portcullis/measure"
	"portcullis/measure/eventlog"
	"portcullis/measure/record"
)

// keptPolicy is of a pod with one container.
const keptPolicy = `package agent_policy

policy_data := {"containers": {
	"$sandbox": {"after": [], "exec": [], "image": {"also": [], "digest": "", "layers": []}, "OCI": {"Annotations": {}}},
	"web": {"after": [], "exec": [["cat", "/healthy"]], "image": {"also": [], "digest": "", "layers": []},
		"OCI": {"Annotations": {"io.kubernetes.cri.image-name": "registry.example/web:1"}}}
}}
`

// keptRecord is a guest's record without a register: its log, and what its socket answers.
type keptRecord struct {
	log    string // file
	answer record.Answer
}

func containerID(n string) string { return strings.Repeat(n, 32) }

// keep writes the record of a pod that is complete, or that has lost its container, and signs it.
func (d desk) keep(name string, broken bool, nonce []byte) keptRecord {
	d.t.Helper()
	path := filepath.Join(d.dir, name+".log")
	chain, err := measure.NewChain(measure.Config{Log: path})
	if err != nil {
		d.t.Fatal(err)
	}
	digest := sha256.Sum256([]byte(keptPolicy))
	facts := []record.Fact{
		{Kind: record.Policy, Binding: "policy", Alg: "sha256", Digest: hex.EncodeToString(digest[:])},
		{Kind: record.Sandbox, ID: containerID("01")},
		{Kind: record.Created, ID: containerID("01"), Name: "$sandbox"},
		{Kind: record.Started, ID: containerID("01"), Name: "$sandbox"},
		{Kind: record.Created, ID: containerID("02"), Name: "web", Image: "registry.example/web:1"},
		{Kind: record.Started, ID: containerID("02"), Name: "web"},
		{Kind: record.Complete},
	}
	if broken {
		facts = append(facts, record.Fact{Kind: record.Removed, ID: containerID("02"), Name: "web"},
			record.Fact{Kind: record.Broken, ID: containerID("02"), Name: "web", Of: record.Removed})
	}
	var head eventlog.Hex
	for _, f := range facts {
		e, err := f.Event()
		if err != nil {
			d.t.Fatal(err)
		}
		r, err := chain.Update(d.t.Context(), e)
		if err != nil {
			d.t.Fatal(err)
		}
		head = r.Content.Next
	}
	k := keptRecord{log: path, answer: record.Answer{State: record.State{Complete: !broken, Events: len(facts), Head: head.String()}}}
	k.answer.Sign(ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)), nonce)
	return k
}

func (d desk) json(name string, v any) string {
	d.t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		d.t.Fatal(err)
	}
	return d.write(name, text)
}

// TestVerifyARecordWithoutARegister: the report vouches for the key, the key for the head, the head for the log.
func TestVerifyARecordWithoutARegister(t *testing.T) {
	d := desk{t, t.TempDir()}
	signer, nonce := newSNPSigner(t), []byte{1, 2, 3, 4}
	kept, lost := d.keep("kept", false, nonce), d.keep("lost", true, nonce)
	report := func(k keptRecord) []byte {
		return signer.report(record.ReportData(k.answer.Key, nonce), func(r []byte) {
			digest := sha256.Sum256([]byte(keptPolicy))
			copy(r[0xC0:0xE0], digest[:])
		})
	}
	forged := lost.answer // what the key has signed of the broken pod, beside the state of the complete one
	forged.State = kept.answer.State
	other := kept.answer
	other.Sign(ed25519.NewKeyFromSeed([]byte(strings.Repeat("x", 32))), nonce)
	good, answer := d.write("report", report(kept)), d.json("answer", kept.answer)
	for _, tt := range []struct {
		name, answer, log string
		exit              int
		check, verdict    string
	}{
		{"complete", answer, kept.log, 0, "pod-complete", "pass"},
		{"broken", d.json("lost", lost.answer), lost.log, 1, "pod-complete", "fail"},
		{"another's log", answer, lost.log, 1, "pod-log", "fail"},
		{"a head that was not signed", d.json("forged", forged), kept.log, 1, "pod-log", "fail"},
		{"a key that the report does not vouch for", d.json("other", other), kept.log, 1, "nonce", "fail"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := d.verdicts(d.policyctl(tt.exit, "verify", "snp", "--json", "--roots", d.write("roots", signer.roots()), "--product", "Milan",
				"--certs", d.write("vcek", certificate(signer.Vcek.Raw)), "--measurement", hex.EncodeToString(snpMeasurement), "--nonce", hex.EncodeToString(nonce),
				"--report", good, "--pod", d.write("policy.rego", []byte(keptPolicy)), "--record", tt.answer, "--log", tt.log, "--complete"))
			if got[tt.check] != tt.verdict {
				t.Errorf("check %s: %s, want %s; all: %v", tt.check, got[tt.check], tt.verdict, got)
			}
		})
	}
}

// TestThePodIsOfThePolicyThatIsBound: what is bound to the evidence and what the pod's life is held against are one policy.
func TestThePodIsOfThePolicyThatIsBound(t *testing.T) {
	d := desk{t, t.TempDir()}
	signer, nonce := newSNPSigner(t), []byte{1, 2, 3, 4}
	kept := d.keep("kept", false, nonce)
	report := signer.report(record.ReportData(kept.answer.Key, nonce), func(r []byte) {
		digest := sha256.Sum256([]byte(keptPolicy))
		copy(r[0xC0:0xE0], digest[:])
	})
	policy, other := d.write("policy.rego", []byte(keptPolicy)), d.write("other.rego", []byte(keptPolicy+"\n"))
	for pod, exit := range map[string]int{policy: 0, other: 2} {
		var out, errs bytes.Buffer
		code := run(context.Background(), []string{"verify", "snp", "--roots", d.write("roots", signer.roots()), "--product", "Milan",
			"--certs", d.write("vcek", certificate(signer.Vcek.Raw)), "--measurement", hex.EncodeToString(snpMeasurement), "--nonce", hex.EncodeToString(nonce),
			"--report", d.write("report", report), "--policy", policy, "--pod", pod, "--record", d.json("answer", kept.answer), "--log", kept.log},
			stdio{strings.NewReader(""), &out, &errs})
		if code != exit {
			t.Errorf("the pod's policy is %s: exit code %d, want %d\n%s%s", filepath.Base(pod), code, exit, &out, &errs)
		}
	}
}

// TestAKeyBrokerReleasesForACompletePod: the resource policy of docs/record.md, asked by OPA with the claims of a real result.
func TestAKeyBrokerReleasesForACompletePod(t *testing.T) {
	page, err := os.ReadFile("../../docs/record.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(page), "```rego\n")
	policy, _, ok := strings.Cut(rest, "```")
	if !ok {
		t.Fatal("docs/record.md has no resource policy")
	}
	d := desk{t, t.TempDir()}
	signer, nonce := newSNPSigner(t), []byte{1, 2, 3, 4}
	private, err := os.ReadFile(ecKey(t, d))
	if err != nil {
		t.Fatal(err)
	}
	public := publicKey(t, private)
	for name, broken := range map[string]bool{"complete": false, "broken": true} {
		t.Run(name, func(t *testing.T) {
			kept := d.keep(name, broken, nonce)
			report := signer.report(record.ReportData(kept.answer.Key, nonce), func(r []byte) {
				digest := sha256.Sum256([]byte(keptPolicy))
				copy(r[0xC0:0xE0], digest[:])
			})
			token := filepath.Join(d.dir, name+".jwt")
			d.policyctl(0, "verify", "snp", "--roots", d.write("roots", signer.roots()), "--product", "Milan",
				"--certs", d.write("vcek", certificate(signer.Vcek.Raw)), "--measurement", hex.EncodeToString(snpMeasurement), "--nonce", hex.EncodeToString(nonce),
				"--report", d.write("report", report), "--pod", d.write("policy.rego", []byte(keptPolicy)),
				"--record", d.json("answer", kept.answer), "--log", kept.log, "--ear", token, "--ear-key", d.write("key.pem", private))
			text, err := os.ReadFile(token)
			if err != nil {
				t.Fatal(err)
			}
			claims := verified(t, strings.TrimSpace(string(text)), public)
			for path, want := range map[string]bool{"shop/database/key": !broken, "shop/other/key": false} {
				if got := released(t, policy, claims, path); got != want {
					t.Errorf("%s: released %t, want %t", path, got, want)
				}
			}
			if released(t, policy, map[string]any{}, "shop/database/key") {
				t.Error("released without claims")
			}
		})
	}
}

// ecKey makes a key as people do.
func ecKey(t *testing.T, d desk) string {
	t.Helper()
	path := filepath.Join(d.dir, "ec.pem")
	if out, err := exec.Command("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", path).CombinedOutput(); err != nil {
		t.Fatalf("openssl: %v: %s", err, out)
	}
	return path
}

func publicKey(t *testing.T, private []byte) string {
	t.Helper()
	block, _ := pem.Decode(private)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
}

// verified is what OPA's own verification of the token gives.
func verified(t *testing.T, token, key string) map[string]any {
	t.Helper()
	r, err := rego.New(rego.Query(`[ok, _, claims] := io.jwt.decode_verify(input.token, {"cert": input.key, "alg": "ES256"})`),
		rego.Input(map[string]any{"token": token, "key": key})).Eval(t.Context())
	if err != nil || len(r) != 1 || r[0].Bindings["ok"] != true {
		t.Fatalf("OPA does not verify the token: %v, %v", r, err)
	}
	return r[0].Bindings["claims"].(map[string]any)
}

// released asks the resource policy as the key broker of Trustee does.
func released(t *testing.T, policy string, claims map[string]any, path string) bool {
	t.Helper()
	r, err := rego.New(rego.Module("resource.rego", policy), rego.Query("data.policy.allow"), rego.Input(claims),
		rego.Store(inmem.NewFromObject(map[string]any{"resource-path": path}))).Eval(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return len(r) == 1 && r[0].Expressions[0].Value == true
}

// TestUnsignedEAR has the form of an unsecured JWT (RFC 7515, appendix A.5).
func TestUnsignedEAR(t *testing.T) {
	d := desk{t, t.TempDir()}
	signer := newSNPSigner(t)
	kept := d.keep("kept", false, []byte{9})
	token := strings.TrimSpace(d.policyctl(1, "verify", "snp", "--roots", d.write("roots", signer.roots()), "--product", "Milan",
		"--certs", d.write("vcek", certificate(signer.Vcek.Raw)), "--nonce", "09", "--measurement", hex.EncodeToString(snpMeasurement),
		"--report", d.write("report", signer.report([]byte{9}, nil)), "--pod", d.write("policy.rego", []byte(keptPolicy)),
		"--record", d.json("answer", kept.answer), "--log", kept.log, "--ear", "-"))
	parts := strings.Split(token, ".")
	if len(parts) != 3 || parts[2] != "" {
		t.Fatalf("token %q", token)
	}
	var head struct{ Alg string }
	var claims struct {
		Submods map[string]struct {
			Status string `json:"ear.status"`
		}
	}
	for i, into := range []any{&head, &claims} {
		text, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(text, into); err != nil {
			t.Fatal(err)
		}
	}
	if head.Alg != "none" || claims.Submods["pod"].Status != "contraindicated" { // the report is over the nonce alone
		t.Errorf("%+v, %+v", head, claims)
	}
}
