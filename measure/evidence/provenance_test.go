// SPDX-License-Identifier: Apache-2.0

package evidence_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"portcullis/measure/evidence"
)

func TestAKCertificate(t *testing.T) {
	a := newAttester(t, "ecc", "ecdsa", text)
	e := a.quote("sha256:8")
	block, _ := pem.Decode(a.file("ak.pem"))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	roots, cert := issue(t, pub)
	_, foreign := issue(t, pub)
	_, otherKey := issue(t, newECDSA(t).Public())
	otherRoots := x509.NewCertPool()
	tests := []struct {
		name    string
		cert    []byte
		roots   *x509.CertPool
		exit    int
		verdict evidence.Verdict
	}{
		{"of a trusted root", cert, roots, 0, evidence.Pass},
		{"as PEM", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}), roots, 0, evidence.Pass},
		{"of no known root", cert, nil, 3, evidence.Unknown},
		{"of another root", cert, otherRoots, 1, evidence.Fail},
		{"of another root of the same name", foreign, roots, 1, evidence.Fail},
		{"of another key", otherKey, roots, 1, evidence.Fail},
		{"garbage", []byte("x"), roots, 1, evidence.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e.Key = evidence.Provenance{AKCert: tt.cert}
			expect(t, evidence.VerifyTPM(t.Context(), e, evidence.Options{AKRoots: tt.roots}), tt.exit, "ak", tt.verdict)
		})
	}
}

func TestChallenge(t *testing.T) {
	for _, alg := range []string{"ecc", "rsa"} {
		t.Run(alg, func(t *testing.T) {
			a := newAttester(t, "ecc", "ecdsa", text)
			a.tool("tpm2_createek", "-G", alg, "-c", "ek.ctx", "-u", "ek.pub")
			a.tool("tpm2_createak", "-C", "ek.ctx", "-c", "ak.ctx", "-G", "ecc", "-g", "sha256", "-s", "ecdsa", "-u", "ak.pub")
			a.tool("tpm2_readpublic", "-c", "ek.ctx", "-f", "pem", "-o", "ek.pem")
			e := a.quote("sha256:8")
			block, _ := pem.Decode(a.file("ek.pem"))
			ek, err := x509.ParsePKIXPublicKey(block.Bytes)
			if err != nil {
				t.Fatal(err)
			}
			roots, cert := issue(t, ek)
			c, err := evidence.NewChallenge(rand.Reader, cert, e.AK)
			if err != nil {
				t.Fatal(err)
			}
			answer := a.activate(c)
			_, untrusted := issue(t, ek)
			forged := c
			forged.EKCert = untrusted
			otherKey := c
			otherKey.AKName = flip(c.AKName, 5)
			tests := []struct {
				name      string
				challenge evidence.Challenge
				answer    []byte
				roots     *x509.CertPool
				exit      int
				verdict   evidence.Verdict
			}{
				{"answered", c, answer, roots, 0, evidence.Pass},
				{"answered wrongly", c, flip(answer, 0), roots, 1, evidence.Fail},
				{"not answered", c, nil, roots, 1, evidence.Fail},
				{"without a secret", evidence.Challenge{AKName: c.AKName, EKCert: cert}, nil, roots, 1, evidence.Fail},
				{"for another key", otherKey, answer, roots, 1, evidence.Fail},
				{"endorsement key of another vendor", forged, answer, roots, 1, evidence.Fail},
				{"no roots", c, answer, nil, 3, evidence.Unknown},
			}
			for _, tt := range tests {
				t.Run(tt.name, func(t *testing.T) {
					e.Key = evidence.Provenance{Challenge: &tt.challenge, Answer: tt.answer}
					expect(t, evidence.VerifyTPM(t.Context(), e, evidence.Options{AKRoots: tt.roots}), tt.exit, "ak", tt.verdict)
				})
			}
			if _, err := evidence.NewChallenge(rand.Reader, cert, a.file("ak.pem")); err == nil {
				t.Error("a challenge for a key without a name")
			}
		})
	}
}

// activate has the TPM answer a challenge, with the policy of the default endorsement key.
func (a attester) activate(c evidence.Challenge) []byte {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, "cred"), c.Credential, 0o600); err != nil {
		a.t.Fatal(err)
	}
	a.tool("tpm2_startauthsession", "--policy-session", "-S", "s.ctx")
	a.tool("tpm2_policysecret", "-S", "s.ctx", "-c", "e")
	a.tool("tpm2_activatecredential", "-c", "ak.ctx", "-C", "ek.ctx", "-i", "cred", "-o", "answer", "-P", "session:s.ctx")
	return a.file("answer")
}

// issue makes a root and a certificate of pub under it.
func issue(t *testing.T, pub any) (*x509.CertPool, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	root := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign}
	rootDER, err := x509.CreateCertificate(rand.Reader, root, root, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "AK"}, NotBefore: root.NotBefore, NotAfter: root.NotAfter}
	der, err := x509.CreateCertificate(rand.Reader, leaf, root, pub, key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(rootDER)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(parsed)
	return pool, der
}

// hclReport builds the report of an Azure confidential VM around a key. made is applied to the SNP report before it is signed,
// change to what came of it.
func hclReport(t *testing.T, a amd, key *rsa.PublicKey, made func(report []byte), change func(report, runtime []byte)) []byte {
	t.Helper()
	b64 := base64.RawURLEncoding.EncodeToString
	runtime, err := json.Marshal(map[string]any{"keys": []map[string]any{
		{"kid": "HCLAkPub", "key_ops": []string{"sign"}, "kty": "RSA", "e": b64(big.NewInt(int64(key.E)).Bytes()), "n": b64(key.N.Bytes())},
		{"kid": "HCLEkPub", "key_ops": []string{"encrypt"}, "kty": "RSA", "e": "AQAB", "n": "AAAA"},
	}, "vm-configuration": map[string]any{"secure-boot": true}, "user-data": strings.Repeat("0", 128)})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(runtime)
	report := a.report(t, sum[:], nil, made)
	if change != nil {
		change(report, runtime)
	}
	hcl := append([]byte("HCLA"), make([]byte, 28)...)
	hcl = append(hcl, report...)
	for _, v := range []uint32{uint32(20 + len(runtime)), 1, 2, 1, uint32(len(runtime))} {
		hcl = binary.LittleEndian.AppendUint32(hcl, v)
	}
	return append(append(hcl, runtime...), make([]byte, 100)...) // the NV index is larger than the report
}

func TestHCLReport(t *testing.T) {
	a, vendor := newAttester(t, "rsa", "rsassa", text), newAMD(t)
	e := a.quote("sha256:8")
	block, _ := pem.Decode(a.file("ak.pem"))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	key := pub.(*rsa.PublicKey)
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	good := hclReport(t, vendor, key, nil, nil)
	known, signer := vendor.opts.Reference, bytes.Repeat([]byte{0x1d}, 48)
	at := func(vmpl byte) []byte {
		return hclReport(t, vendor, key, func(r []byte) { r[0x30] = vmpl }, nil)
	}
	signed := hclReport(t, vendor, key, func(r []byte) { copy(r[0xE0:0x110], signer); r[0x90] ^= 1 }, nil)
	tdx := bytes.Clone(good)
	tdx[32+1184+8] = 4
	tests := []struct {
		name    string
		hcl     []byte
		certs   []byte
		ref     evidence.Reference
		exit    int
		verdict evidence.Verdict
	}{
		{"binds the key", good, vendor.vcekPEM(), known, 0, evidence.Pass},
		{"without the VCEK", good, nil, known, 3, evidence.Unknown},
		{"of another key", hclReport(t, vendor, &other.PublicKey, nil, nil), vendor.vcekPEM(), known, 1, evidence.Fail},
		{"runtime data changed", hclReport(t, vendor, key, nil, func(_, runtime []byte) { runtime[len(runtime)-5] ^= 1 }), vendor.vcekPEM(), known, 1, evidence.Fail},
		{"SNP report changed", hclReport(t, vendor, key, nil, func(report, _ []byte) { report[0x2A0] ^= 1 }), vendor.vcekPEM(), known, 1, evidence.Fail},
		{"of a TDX machine", tdx, nil, known, 3, evidence.Unknown},
		{"cut", good[:1300], vendor.vcekPEM(), known, 3, evidence.Unknown},
		{"garbage", []byte("HCLA"), vendor.vcekPEM(), known, 3, evidence.Unknown},
		{"of some SNP guest, nobody says which", good, vendor.vcekPEM(), evidence.Reference{}, 3, evidence.Unknown},
		{"of a guest's user, nobody says which", at(3), vendor.vcekPEM(), evidence.Reference{}, 3, evidence.Unknown},
		{"of the paravisor's guest, VMPL 1", at(1), vendor.vcekPEM(), known, 3, evidence.Unknown},
		{"of a guest's user, VMPL 3", at(3), vendor.vcekPEM(), known, 3, evidence.Unknown},
		{"of another paravisor", signed, vendor.vcekPEM(), known, 1, evidence.Fail},
		{"of a paravisor by its signer", signed, vendor.vcekPEM(), evidence.Reference{IDKeys: [][]byte{signer}}, 0, evidence.Pass},
		{"of a paravisor that nobody signed", good, vendor.vcekPEM(), evidence.Reference{IDKeys: [][]byte{signer}}, 1, evidence.Fail},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e.Key = evidence.Provenance{HCL: tt.hcl, HCLCerts: tt.certs}
			o := vendor.opts
			o.Reference = tt.ref
			expect(t, evidence.VerifyTPM(t.Context(), e, o), tt.exit, "ak", tt.verdict)
		})
	}
}

// FuzzTPM: no input makes the parsers panic, and none but the signed quote passes.
func FuzzTPM(f *testing.F) {
	a := newAttester(f, "ecc", "ecdsa", text)
	e := a.quote("sha256:8,9")
	f.Add(e.Quote, e.Signature, e.AK, e.PCRs, e.Log)
	f.Add(e.Quote, e.Signature, a.file("ak.pem"), e.PCRs, []byte{})
	f.Fuzz(func(t *testing.T, quote, sig, ak, pcrs, log []byte) {
		r := evidence.VerifyTPM(t.Context(), evidence.TPM{Quote: quote, Signature: sig, AK: ak, PCRs: pcrs, Log: log, Nonce: e.Nonce, PCR: 8,
			Bound: e.Bound, Key: evidence.Provenance{HCL: log}}, evidence.Options{TrustAK: true})
		if r.ExitCode() == 0 && !bytes.Equal(quote, e.Quote) {
			t.Fatal("accepted a quote that was not signed")
		}
	})
}
